"""SAM as the automatic mask generator sees it: crops in, scores out, then only the wanted masks.

Most prompts of a grid are dropped by their predicted IoU, which needs the decoder's tokens alone.
So `score` stops there and keeps the decoder's state on the device, and `measure` upscales and
rasterises the survivors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.records import MaskBatch
from amg_pipeline.sam.backend import (
    compile_function,
    has_accelerator,
    is_compiled_by_xla,
    threads_for_calls,
)
from amg_pipeline.sam.grid_parts import GridParts
from amg_pipeline.sam.image_side import DenseImage
from amg_pipeline.sam.low_rank_image import LowRankImage
from amg_pipeline.sam.prompt_encoder import LABEL_FOREGROUND, LABEL_NOT_A_POINT
from amg_pipeline.sam.rasterizer import Rasterizer
from amg_pipeline.sam.transforms import longest_side_size

if TYPE_CHECKING:
    from amg_pipeline.sam.model import SAM

#: Prompts whose masks are made by one call: of the low-rank form on a processor, and else.
_PROMPTS_UPSCALED_IN_PARTS, _PROMPTS_UPSCALED = 4, 16
#: Prompts whose attention a processor's caches hold; an accelerator takes all at once.
_PROMPTS_ATTENDED = 4
#: Rows and columns of the positions that are upscaled at a time, for the same reason; and so few
#: that XLA shares none of their products among threads, which have calls of their own.
_PART, _PART_OF_XLA = (8, 16), (4, 8)
#: Prompts that a thread of a processor attends for at the most. The same whatever the number of
#: threads, since another graph rounds differently.
_PROMPTS_OF_A_CALL = 32
#: What a batch of masks has one of for each mask.
_ARRAYS = ("stable_pixels", "possible_pixels", "boxes_xyxy", "packed")


@dataclass(frozen=True, slots=True)
class SamEmbedding:
    """An embedded crop.

    Attributes:
        features: Image embedding on the device, `(1, H, W, C)`.
        shared: What all prompts share of it, on the device: tensors in some structure.
        crop_hw: Size of the crop in pixels.
        input_hw: Size of the resized crop in the model frame, without padding.
    """

    features: Any
    shared: Any
    crop_hw: tuple[int, int]
    input_hw: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SamScoredPrompts:
    """A batch of prompts after the transformer.

    Attributes:
        predicted_iou: float32 `(P, 3)`.
        states: Tokens and image as the blocks left them, on the device, of some prompts after
            others: tensors with the (padded) prompts first.
        embedding: What the prompts were asked of.
    """

    predicted_iou: NDArray[np.float32]
    states: Sequence[Any]
    embedding: SamEmbedding


class SamSegmenter:
    """Runs a SAM at fixed shapes behind the generator's protocol.

    Args:
        sam: A built model.
        points_per_batch: Prompts of a batch at the most.
        encoder_batch_size: Crops of one encoder call; shorter batches are padded.
        threads: Calls of the decoder at a time; if None, as many as the processor is worth, and of
            a large model's long calls one more.
    """

    def __init__(
        self,
        sam: SAM,
        *,
        points_per_batch: int,
        encoder_batch_size: int = 1,
        threads: int | None = None,
    ) -> None:
        self._sam = sam
        self._img_size: int = sam.image_encoder.img_size
        self._points_per_batch = points_per_batch
        self._encoder_batch_size = encoder_batch_size
        decoder = sam.mask_decoder
        # The learned tokens, the point and its padding.
        self._num_tokens = 1 + decoder.num_mask_tokens + 2
        is_low_rank = decoder.transformer.is_low_rank(self._num_tokens)
        self._form = LowRankImage if is_low_rank else DenseImage
        on_processor = not has_accelerator()
        in_turns = is_low_rank and on_processor
        self._prompts_upscaled = _PROMPTS_UPSCALED_IN_PARTS if in_turns else _PROMPTS_UPSCALED
        self._parts = _parts_of(sam.image_encoder.grid_size, in_turns=in_turns)
        calls = math.ceil(points_per_batch / _PROMPTS_OF_A_CALL) if on_processor else 1
        of_a_call = math.ceil(points_per_batch / calls)
        self._prompts_at_once = min(_PROMPTS_ATTENDED, of_a_call) if in_turns else of_a_call
        turns = math.ceil(of_a_call / self._prompts_at_once)
        self._prompts_of_a_call = turns * self._prompts_at_once
        self._embed = compile_function(self._embed_batch, sam.image_encoder.variables)
        prompt_side = [*sam.prompt_encoder.variables, *sam.mask_decoder.variables]
        self._share = compile_function(self._share_image, prompt_side)
        fuse = is_low_rank or on_processor
        self._attend = compile_function(self._attend_points, prompt_side, fuse=fuse)
        self._make_logits = compile_function(self._make_low_res_logits, prompt_side, fuse=fuse)
        self._threads = ThreadPoolExecutor(
            threads or _threads_for_calls(in_turns=in_turns), thread_name_prefix="prompts"
        )
        self._rasterizer = Rasterizer(
            sam.prompt_encoder.mask_input_size, self._img_size, mask_threshold=sam.mask_threshold
        )

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
            for i, crop in enumerate(batch):
                alone = features[i : i + 1]
                embeddings.append(SamEmbedding(alone, self._share(alone), crop.shape[:2], sizes[i]))
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
        calls = math.ceil(count / self._prompts_of_a_call)
        coords = np.zeros((calls * self._prompts_of_a_call, 1, 2), np.float32)
        coords[:count, 0] = (scaled + 0.5) / self._img_size
        states, scores = zip(
            *self._threads.map(partial(self._attend, embedding.shared), np.split(coords, calls)),
            strict=True,
        )
        predicted_iou = np.concatenate([ops.convert_to_numpy(some) for some in scores])
        return SamScoredPrompts(np.ascontiguousarray(predicted_iou[:count, 1:]), states, embedding)

    def measure(
        self,
        scored: SamScoredPrompts,
        prompt_indices: NDArray[np.intp],
        mask_indices: NDArray[np.intp],
        *,
        stability_score_offset: float,
    ) -> MaskBatch:
        """Make and measure chosen masks of a scored batch at the crop's full resolution."""
        embedding, size = scored.embedding, self._prompts_of_a_call
        num_outputs = self._sam.mask_decoder.num_multimask_outputs
        wanted = self._parts.within(*self._positions_within(embedding))

        def measure_some(turn: tuple[Any, NDArray[np.intp]]) -> tuple[MaskBatch, NDArray[np.intp]]:
            state, some = turn
            padded = np.pad(some % size, (0, self._prompts_upscaled - len(some)), mode="edge")
            logits = self._make_logits(embedding.shared, state, padded.astype(np.int32), wanted)
            places = np.flatnonzero(np.isin(prompt_indices, some))
            part = self._rasterizer.measure(
                logits,
                np.searchsorted(some, prompt_indices[places]) * num_outputs + mask_indices[places],
                image_hw=embedding.crop_hw,
                input_hw=embedding.input_hw,
                stability_score_offset=stability_score_offset,
            )
            return part, places

        prompts = np.unique(prompt_indices)
        turns = [
            (state, some)
            for call, state in enumerate(scored.states)
            for some in _cut(prompts[prompts // size == call], self._prompts_upscaled)
        ]
        return _joined(len(prompt_indices), self._threads.map(measure_some, turns))

    def _positions_within(self, embedding: SamEmbedding) -> tuple[int, int]:
        """Tell how many rows and columns of the grid the masks of a crop are made of."""
        rows, columns = self._rasterizer.samples_used(
            image_hw=embedding.crop_hw, input_hw=embedding.input_hw
        )
        # Each position is upscaled to 4 x 4 samples.
        return -(-rows // 4), -(-columns // 4)

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

    def _share_image(self, features: Any) -> Any:
        prompt_encoder, decoder = self._sam.prompt_encoder, self._sam.mask_decoder
        _, dense = prompt_encoder()
        # Cast as a layer's call does with what it is given; its steps do not.
        image, positions = (
            ops.cast(part, decoder.compute_dtype)
            for part in (
                ops.add(ops.convert_to_tensor(features), dense),
                prompt_encoder.get_dense_pe(),
            )
        )
        return decoder.image_side(image, positions, self._num_tokens).shared

    def _attend_points(self, shared: Any, coords: Any) -> tuple[Any, Any]:
        prompt_encoder, decoder = self._sam.prompt_encoder, self._sam.mask_decoder
        coords = ops.convert_to_tensor(coords)
        labels = ops.full_like(coords[..., 0], LABEL_FOREGROUND, dtype="int32")
        padding = ops.full_like(labels, LABEL_NOT_A_POINT)
        sparse = prompt_encoder.embed_normalized_points(
            ops.concatenate([coords, ops.zeros_like(coords)], axis=1),
            ops.concatenate([labels, padding], axis=1),
        )
        tokens = decoder.prompt_tokens(ops.cast(sparse, decoder.compute_dtype))
        if coords.shape[0] == self._prompts_at_once:
            return self._score(shared, tokens)
        turns = ops.reshape(tokens, (-1, self._prompts_at_once, *tokens.shape[1:]))
        scored: tuple[Any, Any] = keras.tree.map_structure(
            lambda part: ops.reshape(part, (-1, *part.shape[2:])),
            ops.map(lambda some: self._score(shared, some), turns),
        )
        return scored

    def _score(self, shared: Any, tokens: Any) -> tuple[dict[str, Any], Any]:
        """Run prompts up to their scores; of the last attention these need one token alone."""
        decoder = self._sam.mask_decoder
        queries, image = decoder.transformer.run_blocks(self._form.restored(shared), tokens)
        iou_token = decoder.transformer.look_once_more(image, queries[:, :1], tokens[:, :1])
        state = {"tokens": tokens, "queries": queries, "image": image.added}
        return state, decoder.predict_iou(iou_token)

    def _make_low_res_logits(self, shared: Any, state: Any, prompts: Any, wanted: Any) -> Any:
        """Make all masks of a few prompts, float32 `(3 P, h, w)`, a prompt's one after another."""
        chosen = keras.tree.map_structure(lambda part: ops.take(part, prompts, axis=0), state)
        logits = self._sam.mask_decoder.mask_logits(
            self._weights_of(shared, chosen),
            self._form.restored(shared, chosen["image"]),
            replace(self._parts, wanted=wanted),
        )
        return ops.reshape(logits, (-1, *logits.shape[-2:]))

    def _weights_of(self, shared: Any, state: dict[str, Any]) -> Any:
        """Finish the mask tokens; the first is for single masks, and left out."""
        decoder = self._sam.mask_decoder
        masks = slice(2, 1 + decoder.num_mask_tokens)
        tokens = decoder.transformer.look_once_more(
            self._form.restored(shared, state["image"]),
            state["queries"][:, masks],
            state["tokens"][:, masks],
        )
        return decoder.weights_of_masks(tokens, first=1)


def _parts_of(grid: tuple[int, int], *, in_turns: bool) -> GridParts:
    if not in_turns:
        return GridParts(grid, grid)
    most = _PART_OF_XLA if is_compiled_by_xla() else _PART
    rows, columns = (
        max(divisor for divisor in range(1, limit + 1) if size % divisor == 0)
        for limit, size in zip(most, grid, strict=True)
    )
    return GridParts(grid, (rows, columns))


def _threads_for_calls(*, in_turns: bool) -> int:
    threads = threads_for_calls()
    # Long calls with Python between them: one more thread computes while another waits for Python.
    return threads + 1 if in_turns and threads > 1 else threads


def _cut(indices: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _joined(count: int, parts: Iterable[tuple[MaskBatch, NDArray[np.intp]]]) -> MaskBatch:
    """Put batches of one crop, each with the places of its masks, into one batch.

    One after another, so that few parts of large masks are alive beside the whole.
    """
    whole: MaskBatch | None = None
    for part, places in parts:
        if whole is None:
            arrays = {
                name: np.empty((count, *getattr(part, name).shape[1:]), getattr(part, name).dtype)
                for name in _ARRAYS
            }
            whole = MaskBatch(**arrays, height=part.height, width=part.width)
        for name in _ARRAYS:
            getattr(whole, name)[places] = getattr(part, name)
    if whole is None:
        raise ValueError("Expected at least one mask to measure. Received: none")
    return whole
