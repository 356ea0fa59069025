"""SAM as the automatic mask generator sees it: crops in, scores out, then only the wanted masks.

Most prompts of a grid are dropped by their predicted IoU, which needs the decoder's tokens alone.
So `score` stops there and keeps the decoder's state on the device, and `measure` upscales and
rasterises the survivors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.records import MaskBatch
from amg_pipeline.sam.backend import compile_function
from amg_pipeline.sam.postprocess import boxes_from_profiles, measure_tile, resize_weights
from amg_pipeline.sam.prompt_encoder import LABEL_FOREGROUND, LABEL_NOT_A_POINT
from amg_pipeline.sam.transforms import longest_side_size

if TYPE_CHECKING:
    from amg_pipeline.sam.model import SAM

#: Batches of varying size are padded to whole multiples of this, so that few shapes compile.
_BATCH_MULTIPLE = 8
#: Full-size pixels (float32 logits) that one tile may hold.
_TILE_PIXELS = 4_000_000


@dataclass(frozen=True, slots=True)
class SamEmbedding:
    """An embedded crop.

    Attributes:
        features: Image embedding on the device, `(1, H, W, C)`.
        crop_hw: Size of the crop in pixels.
        input_hw: Size of the resized crop in the model frame, without padding.
    """

    features: Any
    crop_hw: tuple[int, int]
    input_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SamScoredPrompts:
    """A batch of prompts after the transformer.

    Attributes:
        predicted_iou: float32 `(P, 3)`.
        tokens: Output tokens on the device, padded batch first.
        image: Image features on the device, one set per prompt.
        embedding: What the prompts were asked of.
    """

    predicted_iou: NDArray[np.float32]
    tokens: Any
    image: Any
    embedding: SamEmbedding


class SamSegmenter:
    """Runs a SAM at fixed shapes behind the generator's protocol.

    Args:
        sam: A built model.
        points_per_batch: Prompts of one decoder call; shorter batches are padded.
        encoder_batch_size: Crops of one encoder call; shorter batches are padded.
    """

    def __init__(self, sam: SAM, *, points_per_batch: int, encoder_batch_size: int = 1) -> None:
        self._sam = sam
        self._img_size: int = sam.image_encoder.img_size
        self._points_per_batch = points_per_batch
        self._encoder_batch_size = encoder_batch_size
        self._embed = compile_function(self._embed_batch, sam.image_encoder.variables)
        prompt_side = [*sam.prompt_encoder.variables, *sam.mask_decoder.variables]
        self._attend = compile_function(self._attend_points, prompt_side)
        self._make_logits = compile_function(self._make_low_res_logits, prompt_side)
        self._measure = compile_function(measure_tile, [])

    @property
    def variant(self) -> str | None:
        """Name whose AMG defaults apply; None for a custom model."""
        return self._sam.variant

    def encode(self, crops: Sequence[NDArray[np.uint8]]) -> list[SamEmbedding]:
        """Embed crops, each uint8 `(height, width, 3)` RGB."""
        embeddings: list[SamEmbedding] = []
        for start in range(0, len(crops), self._encoder_batch_size):
            batch = crops[start : start + self._encoder_batch_size]
            images = np.zeros(
                (self._encoder_batch_size, self._img_size, self._img_size, 3), np.float32
            )
            sizes = [self._fill_model_frame(images[i], crop) for i, crop in enumerate(batch)]
            features = self._embed(images)
            embeddings += [
                SamEmbedding(features[i : i + 1], crop.shape[:2], sizes[i])
                for i, crop in enumerate(batch)
            ]
        return embeddings

    def score(self, embedding: SamEmbedding, points: NDArray[np.float64]) -> SamScoredPrompts:
        """Run point prompts, float64 `(P, 2)` XY in the crop's frame, up to their scores."""
        count = len(points)
        if not 0 < count <= self._points_per_batch:
            raise ValueError(
                f"Expected 1 to {self._points_per_batch} points (points_per_batch). "
                f"Received: {count}"
            )
        (crop_h, crop_w), (input_h, input_w) = embedding.crop_hw, embedding.input_hw
        # In float64 up to here, as in the reference: float32 pixels would move the phases.
        scaled = points * np.array([input_w / crop_w, input_h / crop_h])
        coords = np.zeros((self._points_per_batch, 1, 2), np.float32)
        coords[:count, 0] = (scaled + 0.5) / self._img_size
        tokens, image, predicted_iou = self._attend(embedding.features, coords)
        scores = ops.convert_to_numpy(predicted_iou)[:count, 1:]
        return SamScoredPrompts(np.ascontiguousarray(scores), tokens, image, embedding)

    def measure(
        self,
        scored: SamScoredPrompts,
        prompt_indices: NDArray[np.intp],
        mask_indices: NDArray[np.intp],
        *,
        stability_score_offset: float,
    ) -> MaskBatch:
        """Make and measure chosen masks of a scored batch at the crop's full resolution."""
        prompts, inverse = np.unique(prompt_indices, return_inverse=True)
        logits = self._make_logits(
            scored.tokens,
            scored.image,
            _pad_indices(prompts),
            _pad_indices(inverse * self._sam.mask_decoder.num_multimask_outputs + mask_indices),
        )
        return self._measure_logits(
            logits, len(prompt_indices), scored.embedding, stability_score_offset
        )

    def _fill_model_frame(
        self, frame: NDArray[np.float32], crop: NDArray[np.uint8]
    ) -> tuple[int, int]:
        height, width = longest_side_size(crop.shape[0], crop.shape[1], self._img_size)
        if (height, width) == crop.shape[:2]:
            resized = crop
        else:
            resized = np.asarray(
                Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR)
            )
        mean = np.asarray(self._sam.pixel_mean, np.float32)
        std = np.asarray(self._sam.pixel_std, np.float32)
        frame[:height, :width] = (resized.astype(np.float32) - mean) / std
        return height, width

    def _embed_batch(self, images: Any) -> Any:
        return self._sam.image_encoder(ops.convert_to_tensor(images))

    def _attend_points(self, features: Any, coords: Any) -> tuple[Any, Any, Any]:
        prompt_encoder, decoder = self._sam.prompt_encoder, self._sam.mask_decoder
        coords = ops.convert_to_tensor(coords)
        labels = ops.full_like(coords[..., 0], LABEL_FOREGROUND, dtype="int32")
        padding = ops.full_like(labels, LABEL_NOT_A_POINT)
        sparse = prompt_encoder.embed_normalized_points(
            ops.concatenate([coords, ops.zeros_like(coords)], axis=1),
            ops.concatenate([labels, padding], axis=1),
        )
        _, dense = prompt_encoder()
        tokens, image = decoder.attend(features, prompt_encoder.get_dense_pe(), sparse, dense)
        return tokens, image, decoder.predict_iou(tokens)

    def _make_low_res_logits(self, tokens: Any, image: Any, prompts: Any, masks: Any) -> Any:
        """Upscale chosen prompts and give the chosen ones of their masks, `(M, h, w)`."""
        decoder = self._sam.mask_decoder
        height, width = self._sam.image_encoder.grid_size
        weights = decoder.mask_weights(ops.take(tokens, prompts, axis=0))[:, 1:]
        upscaled = decoder.upscale(ops.take(image, prompts, axis=0), height, width)
        logits = decoder.mask_logits(weights, upscaled)
        flat = ops.reshape(logits, (-1, *logits.shape[2:]))
        return ops.take(flat, masks, axis=0)

    def _measure_logits(
        self, logits: Any, count: int, embedding: SamEmbedding, offset: float
    ) -> MaskBatch:
        height, width = embedding.crop_hw
        weights_y, weights_x = self._resize_weights(embedding)
        padded_rows = weights_y.shape[0]
        valid_rows = np.arange(padded_rows) < height
        rows = np.zeros((count, padded_rows), bool)
        columns = np.zeros((count, width), bool)
        packed = np.zeros((count, width, padded_rows // 8), np.uint8)
        counts = np.zeros((2, count), np.int64)
        tile_rows = max(8, min(padded_rows, _TILE_PIXELS // (_BATCH_MULTIPLE * width) // 8 * 8))
        for first in range(0, count, _BATCH_MULTIPLE):
            some = slice(first, min(first + _BATCH_MULTIPLE, count))
            chunk = logits[first : first + _BATCH_MULTIPLE]
            for top in range(0, padded_rows, tile_rows):
                band = slice(top, top + tile_rows)
                stable, possible, row, column, bits = (
                    ops.convert_to_numpy(part)[: some.stop - some.start]
                    for part in self._measure(
                        chunk,
                        weights_y[band],
                        weights_x,
                        valid_rows[band],
                        np.float32(self._sam.mask_threshold),
                        np.float32(offset),
                    )
                )
                counts[:, some] += np.stack([stable, possible])
                rows[some, band] = row
                columns[some] |= column
                packed[some, :, top // 8 : (top + tile_rows) // 8] = bits
        return MaskBatch(
            stable_pixels=counts[0],
            possible_pixels=counts[1],
            boxes_xyxy=boxes_from_profiles(rows[:, :height], columns),
            packed=packed[:, :, : -(-height // 8)],
            height=height,
            width=width,
        )

    def _resize_weights(
        self, embedding: SamEmbedding
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Give both axes' matrices, the rows padded to whole bytes."""
        low_res_h, low_res_w = self._sam.prompt_encoder.mask_input_size
        weights_y, weights_x = (
            ops.convert_to_numpy(resize_weights(low_res, self._img_size, into, out))
            for low_res, into, out in zip(
                (low_res_h, low_res_w), embedding.input_hw, embedding.crop_hw, strict=True
            )
        )
        return np.pad(weights_y, ((0, -len(weights_y) % 8), (0, 0))), weights_x


def _pad_indices(indices: NDArray[np.intp]) -> NDArray[np.int32]:
    """Repeat the first index until the length is a whole multiple of the batch multiple."""
    padding = -len(indices) % _BATCH_MULTIPLE
    return np.pad(indices.astype(np.int32), (0, padding), mode="edge")
