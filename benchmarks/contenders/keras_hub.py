"""KerasHub's SAM on TensorFlow, in the reference's loop: KerasHub has no mask generation itself.

The loop is what the reference does: the image is encoded once, 64 prompts go through the decoder in
a call, all their masks are brought to full size, filtered by IoU and stability, boxed and encoded,
and at the end suppressed by their boxes. Everything of fixed shape is one compiled graph.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import h5py
import keras_hub
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.sam.transforms import longest_side_size
from amg_pipeline.sam.weights.architecture import SamArchitecture, expected_shapes
from amg_pipeline.sam.weights.names import is_kernel, kernel_to_keras, official_name
from benchmarks.contenders.protocol import POINTS_PER_BATCH, Task, grid_points
from benchmarks.seeded_weights import MODELS, SEED, ParityModel, draw_tensor

_MEAN_RGB = (0.485, 0.456, 0.406)
_STABILITY_OFFSET = 1.0
_NMS_THRESHOLD = 0.7


class KerasHubContender:
    """Implements `Contender`."""

    def __init__(self, task: Task) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(task.threads)
        model = MODELS[task.model]
        self._backbone = _build(model.architecture)
        _fill(self._backbone, model)
        self._task = task
        self._img_size = model.architecture.img_size
        self._encode = tf.function(self._backbone.image_encoder, autograph=False)
        self._decode = tf.function(self._decode_points, autograph=False)
        self._finish = tf.function(self._filter, autograph=False, reduce_retracing=True)

    def embed(self, photo: NDArray[np.uint8]) -> None:
        """See `Contender`."""
        self._hw = photo.shape[:2]
        self._input_hw = height, width = longest_side_size(*self._hw, self._img_size)
        resized = Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR)
        # The encoder normalises what it gets, and padding must be zero after that.
        frame = np.empty((1, self._img_size, self._img_size, 3), np.float32)
        frame[:] = np.array(_MEAN_RGB, np.float32)
        frame[0, :height, :width] = np.asarray(resized, np.float32) / np.float32(255.0)
        self._features = self._encode(frame)
        self._features.numpy()

    def score(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """See `Contender`."""
        scale = np.array([self._input_hw[1] / self._hw[1], self._input_hw[0] / self._hw[0]])
        coords = np.zeros((len(points), 2, 2), np.float32)
        coords[:, 0] = points * scale
        labels = np.tile(np.array([1.0, -1.0], np.float32), (len(points), 1))
        self._low_res, self._iou = self._decode(self._features, coords, labels)
        scores: NDArray[np.float32] = self._iou.numpy()
        return scores

    def _decode_points(self, features: Any, coords: Any, labels: Any) -> tuple[Any, Any]:
        prompts = self._backbone.prompt_encoder(points=coords, labels=labels)
        found = self._backbone.mask_decoder(image_embeddings=features, **prompts)
        return found["masks"][:, 1:], found["iou_pred"][:, 1:]

    def measure(self) -> int:
        """See `Contender`."""
        return len(self._survivors()[0])

    def _survivors(self) -> tuple[list[Any], NDArray[np.float32], NDArray[np.int64]]:
        masks, boxes, iou = (
            part.numpy()
            for part in self._finish(self._low_res, self._iou, self._input_hw, self._hw)
        )
        return [_run_lengths(mask) for mask in masks], iou, boxes

    def _filter(self, low_res: Any, iou: Any, input_hw: Any, hw: Any) -> tuple[Any, Any, Any]:
        frame = tf.image.resize(
            tf.transpose(low_res, (0, 2, 3, 1)), (self._img_size, self._img_size), "bilinear"
        )
        full = tf.image.resize(frame[:, : input_hw[0], : input_hw[1]], hw, "bilinear")
        logits = tf.reshape(tf.transpose(full, (0, 3, 1, 2)), (-1, hw[0], hw[1]))
        iou = tf.reshape(iou, (-1,))
        kept = iou > self._task.pred_iou_thresh
        logits, iou = tf.boolean_mask(logits, kept), tf.boolean_mask(iou, kept)
        stable, possible = (
            tf.reduce_sum(tf.cast(logits > offset, tf.int32), (1, 2))
            for offset in (_STABILITY_OFFSET, -_STABILITY_OFFSET)
        )
        kept = stable / possible >= self._task.stability_score_thresh
        masks, iou = tf.boolean_mask(logits, kept) > 0.0, tf.boolean_mask(iou, kept)
        rows, columns = tf.reduce_any(masks, 2), tf.reduce_any(masks, 1)
        first_last = [
            (tf.argmax(tf.cast(p, tf.int32), 1), hw[i] - 1 - _last(p))
            for i, p in enumerate((rows, columns))
        ]
        (top, bottom), (left, right) = first_last
        size = tf.cast(bottom, tf.int64), tf.cast(right, tf.int64)
        return masks, tf.stack([left, top, size[1], size[0]], axis=1), iou

    def logits(self) -> NDArray[np.float32]:
        """See `Contender`."""
        array: NDArray[np.float32] = self._low_res.numpy()
        return array

    def generate(self, photo: NDArray[np.uint8]) -> int:
        """See `Contender`."""
        self.embed(photo)
        side = self._task.points_per_side
        points = grid_points(photo, side, side**2)
        masks: list[Any] = []
        scores, boxes = [], []
        for first in range(0, len(points), POINTS_PER_BATCH):
            self.score(points[first : first + POINTS_PER_BATCH])
            some, iou, box = self._survivors()
            masks.extend(some)
            scores.append(iou)
            boxes.append(box)
        kept = tf.image.non_max_suppression(
            np.concatenate(boxes).astype(np.float32),
            np.concatenate(scores),
            max_output_size=len(masks),
            iou_threshold=_NMS_THRESHOLD,
        )
        return len([masks[i] for i in kept.numpy()])

    def work(self, photo: NDArray[np.uint8], points: NDArray[np.float64]) -> dict[str, Any]:
        """See `Contender`: not counted; it is the reference's, on other layers."""
        del photo, points
        return {}


def _last(profile: Any) -> Any:
    return tf.argmax(tf.cast(tf.reverse(profile, (1,)), tf.int32), 1, output_type=tf.int32)


def _run_lengths(mask: NDArray[np.bool_]) -> Any:
    from pycocotools import mask as coco

    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))


def _build(a: SamArchitecture) -> Any:
    encoder = keras_hub.models.ViTDetBackbone(
        hidden_size=a.embed_dim,
        num_layers=a.depth,
        intermediate_dim=int(a.embed_dim * a.mlp_ratio),
        num_heads=a.num_heads,
        global_attention_layer_indices=list(a.global_attn_indexes),
        patch_size=a.patch_size,
        num_output_channels=a.out_chans,
        window_size=a.window_size,
        image_shape=(a.img_size, a.img_size, 3),
    )
    prompt_encoder = keras_hub.layers.SAMPromptEncoder(
        hidden_size=a.out_chans,
        image_embedding_size=(a.grid_size, a.grid_size),
        input_image_size=(a.img_size, a.img_size),
        mask_in_channels=a.mask_in_chans,
    )
    decoder = keras_hub.layers.SAMMaskDecoder(
        num_layers=a.decoder_depth,
        hidden_size=a.out_chans,
        intermediate_dim=a.mlp_dim,
        num_heads=a.decoder_num_heads,
        embedding_dim=a.out_chans,
        num_multimask_outputs=a.num_multimask_outputs,
        iou_head_depth=a.iou_head_depth,
        iou_head_hidden_dim=a.iou_head_hidden_dim,
    )
    backbone = keras_hub.models.SAMBackbone(
        image_encoder=encoder, prompt_encoder=prompt_encoder, mask_decoder=decoder, dtype="float32"
    )
    # The decoder is no part of the backbone's graph; a call builds it.
    segmenter = keras_hub.models.SAMImageSegmenter(backbone=backbone)
    del segmenter
    return backbone


def _fill(backbone: Any, model: ParityModel) -> None:
    """Give each variable the values that its place in a preset's file stands for."""
    shapes = expected_shapes(model.architecture)
    with tempfile.TemporaryDirectory(prefix="amg-kerashub-") as folder:
        path = Path(folder) / "model.weights.h5"
        backbone.save_weights(path)
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file.visititems(
                lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None
            )
            for name in names:
                official = official_name("kerashub", name)
                if official is None:
                    raise ValueError(f"Unknown variable of KerasHub's SAM: {name}")
                values = draw_tensor(
                    official, shapes[official], seed=SEED, logit_gain=model.logit_gain
                )
                if is_kernel(official):
                    values = kernel_to_keras(values)
                file[name][...] = values.reshape(file[name].shape)
        backbone.load_weights(path)
