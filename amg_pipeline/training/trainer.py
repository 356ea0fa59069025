"""Trains a SAM: `SAMTrainer` is the Keras model to compile and fit, `SceneBatches` its food."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.sam.model import SAM
from amg_pipeline.training.losses import (
    best_output_loss,
    dice_losses,
    focal_losses,
    mask_ious,
    weighted_mean,
)
from amg_pipeline.training.prompts import drop_small_masks, sample_prompts
from amg_pipeline.training.scene_cache import SceneCache

_FOCAL_WEIGHT = 10.0
_SINGLE_MASK_WEIGHT = 0.25


class SAMTrainer(keras.Model):
    """Wraps a SAM for `compile` and `fit`, on any backend.

    Inputs are a dictionary of `image` `(B, S, S, 3)` in 0 to 255 at the model's own size, `coords`
    `(B, P, 2, 2)` XY and `labels` `(B, P, 2)`; targets one of `label_maps` uint8 `(B, L, S, S)`
    and `target_ids` uint8 `(B, P, L)`.

    The masks of all levels that a click may mean are targets; each is matched with the output that
    fits it best, and only that output learns from it. The single-mask output learns the coarsest
    one. The IoU head learns each output's IoU with the target nearest to it.

    Args:
        sam: The model that is trained in place.
    """

    def __init__(self, sam: SAM, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sam = sam
        self.best_iou = keras.metrics.Mean(name="best_iou")
        self.top_iou = keras.metrics.Mean(name="top_iou")
        self.score_error = keras.metrics.Mean(name="score_error")
        self.built = True

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> dict[str, Any]:
        prompts = inputs["coords"].shape[1]
        features = self.sam.image_encoder(self.sam.preprocess(inputs["image"]), training=training)
        coords = ops.reshape(inputs["coords"], (-1, 2, 2))
        labels = ops.reshape(inputs["labels"], (-1, 2))
        normalized = (ops.cast(coords, "float32") + 0.5) / self.sam.image_encoder.img_size
        sparse = self.sam.prompt_encoder.embed_normalized_points(normalized, labels)
        _, dense = self.sam.prompt_encoder()
        decoder = self.sam.mask_decoder
        tokens, image = decoder.attend(
            ops.repeat(features, prompts, axis=0),
            self.sam.prompt_encoder.get_dense_pe(),
            sparse,
            dense,
        )
        upscaled = decoder.upscale(image, *features.shape[1:3])
        logits = decoder.mask_logits(decoder.mask_weights(tokens), upscaled)
        return {"logits": logits, "iou": decoder.predict_iou(tokens)}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        targets, is_target = cut_targets(y, y_pred["logits"].shape[-2:])
        logits = ops.reshape(y_pred["logits"], (-1, y_pred["logits"].shape[1], targets.shape[-1]))
        losses = _FOCAL_WEIGHT * focal_losses(logits, targets) + dice_losses(logits, targets)
        ious = mask_ious(logits, targets) * ops.expand_dims(is_target, 1)
        coarsest = _coarsest(is_target)
        # The single-mask output has one meaning, the others the one that fits them.
        true_iou = ops.concatenate(
            [
                ops.sum(ious[:, :1] * ops.expand_dims(coarsest, 1), axis=-1),
                ops.max(ious[:, 1:], axis=-1),
            ],
            axis=1,
        )
        score_error = ops.mean(ops.square(y_pred["iou"] - ops.stop_gradient(true_iou)), axis=-1)
        score_loss = weighted_mean(score_error, ops.max(is_target, axis=-1))
        self._update_metrics(ious[:, 1:], y_pred["iou"][:, 1:], is_target, score_loss)
        return (
            best_output_loss(losses[:, 1:], is_target)
            + _SINGLE_MASK_WEIGHT * weighted_mean(losses[:, 0], coarsest)
            + score_loss
        )

    def _update_metrics(
        self, ious: Any, predicted_iou: Any, is_target: Any, score_loss: Any
    ) -> None:
        self.best_iou.update_state(ops.max(ious, axis=1), sample_weight=is_target)
        top = ops.one_hot(ops.argmax(predicted_iou, axis=-1), predicted_iou.shape[-1])
        self.top_iou.update_state(
            ops.sum(ops.max(ious, axis=-1) * top, axis=-1),
            sample_weight=ops.max(is_target, axis=-1),
        )
        self.score_error.update_state(score_loss)


def cut_targets(targets: dict[str, Any], size: tuple[int, int]) -> tuple[Any, Any]:
    """Cut each prompt's masks from the label maps.

    Args:
        targets: `label_maps` `(B, L, S, S)` and `target_ids` `(B, P, L)`, tensors.
        size: Low-res size `(h, w)`.

    Returns:
        Coverage of the low-res pixels in [0, 1], float32 `(B * P, L, h * w)`, and whether a
        prompt has a mask at a level, 0 or 1, float32 `(B * P, L)`.
    """
    ids, label_maps = targets["target_ids"], targets["label_maps"]
    _, levels, height, width = label_maps.shape
    factor = width // size[1]
    is_mask = ops.equal(ops.expand_dims(label_maps, 1), ids[:, :, :, None, None])
    blocks = ops.reshape(
        ops.cast(is_mask, "float32"),
        (-1, levels, height // factor, factor, width // factor, factor),
    )
    is_target = ops.reshape(ops.cast(ids > 0, "float32"), (-1, levels))
    coverage = ops.reshape(ops.mean(blocks, axis=(3, 5)), (-1, levels, size[0] * size[1]))
    return coverage * ops.expand_dims(is_target, -1), is_target


def _coarsest(is_target: Any) -> Any:
    """Mark the last existing level of each prompt, `(N, L)` of 0 and 1."""
    later = ops.flip(ops.cumsum(ops.flip(is_target, -1), axis=-1), -1)
    return is_target * ops.cast(later <= 1.0, "float32")


class SceneBatches(keras.utils.PyDataset):
    """Batches of augmented scenes with prompts, the same for the same seed, epoch and index.

    Args:
        cache: Rendered scenes.
        size: Side of the images to give, in pixels; scenes of another size are resized.
        batch_size: Images of a batch.
        prompts: Prompts of an image.
        steps: Batches of an epoch.
        seed: Decides everything drawn.
        augment: Whether scenes are cropped, mirrored, turned and recoloured.
        min_area: Masks of a smaller share of the image are no targets.

    Attributes:
        epoch: Which epoch's batches are given next.
    """

    def __init__(
        self,
        cache: SceneCache,
        *,
        size: int,
        batch_size: int,
        prompts: int,
        steps: int,
        seed: int,
        augment: bool = True,
        min_area: float = 0.0,
    ) -> None:
        super().__init__()
        self._cache = cache
        self._size = size
        self._batch_size = batch_size
        self._prompts = prompts
        self._steps = steps
        self._seed = seed
        self._augment = augment
        self._min_area = min_area
        self.epoch = 0

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[dict[str, Any], dict[str, Any]]:
        rng = np.random.default_rng((self._seed, self.epoch, index))
        chosen = np.sort(rng.integers(len(self._cache.images), size=self._batch_size))
        images, label_maps, prompts = [], [], []
        for i in chosen:
            image, labels = self._view(rng, self._cache.images[i], self._cache.label_maps[i])
            labels = drop_small_masks(labels, self._min_area)
            images.append(image)
            label_maps.append(labels)
            prompts.append(sample_prompts(rng, labels, self._prompts))
        inputs = {
            "image": np.stack(images),
            "coords": np.stack([p.coords for p in prompts]),
            "labels": np.stack([p.labels for p in prompts]),
        }
        return inputs, {
            "label_maps": np.stack(label_maps),
            "target_ids": np.stack([p.target_ids for p in prompts]),
        }

    def _view(
        self, rng: np.random.Generator, image: NDArray[np.uint8], labels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        if image.shape[0] != self._size:
            image, labels = self._resize(rng, image, labels)
        pixels = image.astype(np.float32)
        if self._augment:
            pixels, labels = _turn(rng, pixels, labels)
            pixels = _recolour(rng, pixels)
        return pixels, np.ascontiguousarray(labels)

    def _resize(
        self, rng: np.random.Generator, image: NDArray[np.uint8], labels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Bring a scene, or when augmenting as often a part of it, to the size to give."""
        side, top, left = image.shape[0], 0, 0
        if self._augment and rng.random() < 0.5:
            side = int(rng.integers(image.shape[0] // 2, image.shape[0]))
            top, left = rng.integers(image.shape[0] - side + 1, size=2)
        part = Image.fromarray(image[top : top + side, left : left + side])
        resized = part.resize((self._size, self._size), Image.Resampling.BILINEAR)
        nearest = ((np.arange(self._size) + 0.5) * side / self._size).astype(int)
        return np.asarray(resized), labels[:, (top + nearest)[:, None], left + nearest]


def _turn(
    rng: np.random.Generator, pixels: NDArray[np.float32], labels: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    if rng.random() < 0.5:
        pixels, labels = pixels[:, ::-1], labels[:, :, ::-1]
    turns = int(rng.choice(4, p=[0.7, 0.1, 0.1, 0.1]))
    return np.rot90(pixels, turns), np.rot90(labels, turns, axes=(1, 2))


def _recolour(rng: np.random.Generator, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    if rng.random() < 0.15:
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
    else:
        gray = pixels.mean(axis=2, keepdims=True)
        pixels = gray + (pixels - gray) * rng.uniform(0.2, 1.1)
    gain = rng.uniform(0.7, 1.25) * rng.uniform(0.92, 1.08, 3)
    recoloured: NDArray[np.float32] = np.clip(
        pixels * gain + rng.uniform(-20.0, 20.0), 0.0, 255.0
    ).astype(np.float32)
    return recoloured
