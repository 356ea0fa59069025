"""Stand-ins with the real interfaces, for tests without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.records import MaskBatch


@dataclass(frozen=True)
class Shape:
    """A disc or rectangle in the image frame, with spots of opposite sign.

    `sharpness` is the logit's slope per pixel at the border: the lower, the less stable the mask.
    `drift` moves the shape by this part of the distance of the prompt from its centre, so that
    prompts give similar masks, but not equal ones. Spots are (x, y, radius).
    """

    kind: Literal["disc", "rectangle"]
    x: float
    y: float
    half_width: float
    half_height: float
    sharpness: float = 4.0
    score: float = 0.97
    drift: float = 0.0
    holes: tuple[tuple[float, float, float], ...] = ()
    islands: tuple[tuple[float, float, float], ...] = ()

    def distance(
        self, x: NDArray[np.float64], y: NDArray[np.float64], scale: float
    ) -> NDArray[np.float64]:
        """Distance to the border of the shape, enlarged by `scale`, in pixels; > 0 inside."""
        dx, dy = np.abs(x - self.x), np.abs(y - self.y)
        half_width, half_height = self.half_width * scale, self.half_height * scale
        if self.kind == "rectangle":
            return np.minimum(half_width - dx, half_height - dy)
        # Exact for circles; for ellipses only the sign is.
        radius = np.sqrt((dx / half_width) ** 2 + (dy / half_height) ** 2)
        return (1 - radius) * min(half_width, half_height)


#: How much larger than the prompted shape the three outputs are: a part, the thing, its group.
OUTPUT_SCALES = (0.5, 1.0, 1.6)


@dataclass(frozen=True)
class DiscEmbedding:
    """Place and size of a crop: all that the fake has to know of it."""

    x0: int
    y0: int
    height: int
    width: int


@dataclass(frozen=True)
class DiscScored:
    """Prompts with their scores."""

    embedding: DiscEmbedding
    points: NDArray[np.float64]
    predicted_iou: NDArray[np.float32]


def coordinate_image(height: int, width: int) -> NDArray[np.uint8]:
    """Paint an image whose pixels say where they are, so that a crop tells its own place."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x & 255, y & 255, (x >> 8) | (y >> 8) << 4], axis=-1).astype(np.uint8)


def crop_origin(crop: NDArray[np.uint8]) -> tuple[int, int]:
    """Left and top of a crop of a `coordinate_image`."""
    red, green, blue = (int(value) for value in crop[0, 0])
    return red + ((blue & 15) << 8), green + ((blue >> 4) << 8)


@dataclass
class DiscSegmenter:
    """A `Segmenter` whose masks follow from formulas; images must be `coordinate_image`s.

    A prompt selects the smallest shape that it lies in. On the background its outputs are the
    whole frame, nothing at all, and a small unstable disc.
    """

    shapes: Sequence[Shape]
    variant: str | None = None
    encoded: list[DiscEmbedding] = field(default_factory=list)
    num_scored: list[int] = field(default_factory=list)
    num_measured: list[int] = field(default_factory=list)

    def encode(self, crops: Sequence[NDArray[np.uint8]]) -> list[DiscEmbedding]:
        embeddings = [DiscEmbedding(*crop_origin(crop), *crop.shape[:2]) for crop in crops]
        self.encoded.extend(embeddings)
        return embeddings

    def score(self, embedding: DiscEmbedding, points: NDArray[np.float64]) -> DiscScored:
        self.num_scored.append(len(points))
        image_points = points + np.array([embedding.x0, embedding.y0])
        scores = [self._scores(x, y) for x, y in image_points]
        return DiscScored(embedding, image_points, np.array(scores, np.float32).reshape(-1, 3))

    def measure(
        self,
        scored: DiscScored,
        prompt_indices: NDArray[np.intp],
        mask_indices: NDArray[np.intp],
        *,
        stability_score_offset: float,
    ) -> MaskBatch:
        self.num_measured.append(len(prompt_indices))
        height, width = scored.embedding.height, scored.embedding.width
        logits = np.empty((len(prompt_indices), height, width), np.float32)
        for i, (prompt, output) in enumerate(zip(prompt_indices, mask_indices, strict=True)):
            logits[i] = self.logits(scored.embedding, scored.points[prompt], int(output))
        return measure_logits(logits, stability_score_offset=stability_score_offset)

    def logits(
        self, embedding: DiscEmbedding, point: NDArray[np.float64], output: int
    ) -> NDArray[np.float32]:
        """Logits of one output `(height, width)` in the crop frame; the point in the image's."""
        y, x = np.mgrid[: embedding.height, : embedding.width] + 0.5
        x, y = x + embedding.x0, y + embedding.y0
        shape = self._shape_at(*point)
        if shape is None:
            if output < 2:
                return np.full(x.shape, (9.0, -9.0)[output], np.float32)
            return (0.3 * (6 - np.hypot(x - point[0], y - point[1]))).astype(np.float32)
        dx, dy = shape.drift * (point[0] - shape.x), shape.drift * (point[1] - shape.y)
        distance = shape.distance(x - dx, y - dy, OUTPUT_SCALES[output])
        for hole_x, hole_y, radius in shape.holes:
            distance = np.minimum(distance, np.hypot(x - hole_x, y - hole_y) - radius)
        for island_x, island_y, radius in shape.islands:
            distance = np.maximum(distance, radius - np.hypot(x - island_x, y - island_y))
        return (shape.sharpness * distance).astype(np.float32)

    def _shape_at(self, x: float, y: float) -> Shape | None:
        inside = [s for s in self.shapes if s.distance(np.asarray(x), np.asarray(y), 1.0) > 0]
        return min(inside, key=lambda s: s.half_width * s.half_height, default=None)

    def _scores(self, x: float, y: float) -> tuple[float, float, float]:
        shape = self._shape_at(x, y)
        if shape is None:
            return (0.6, 0.9, 0.92)
        # Coarse steps, so that many masks have the same score.
        away = np.hypot((x - shape.x) / shape.half_width, (y - shape.y) / shape.half_height)
        best = shape.score - np.round(8 * away) / 64
        return (best - 0.03, best, best - 0.02)


def measure_logits(logits: NDArray[np.float32], *, stability_score_offset: float) -> MaskBatch:
    """Measure full-size logits `(M, height, width)` in the plainest way."""
    masks = logits > 0
    boxes = np.zeros((len(masks), 4), np.int64)
    for box, mask in zip(boxes, masks, strict=True):
        rows, columns = np.nonzero(mask)
        if len(rows):
            box[:] = columns.min(), rows.min(), columns.max(), rows.max()
    return MaskBatch(
        stable_pixels=(logits > stability_score_offset).sum(axis=(1, 2), dtype=np.int64),
        possible_pixels=(logits > -stability_score_offset).sum(axis=(1, 2), dtype=np.int64),
        boxes_xyxy=boxes,
        packed=np.packbits(masks.transpose(0, 2, 1), axis=2),
        height=logits.shape[1],
        width=logits.shape[2],
    )


@dataclass
class DiscModel:
    """A model that makes `DiscSegmenter`s, as `SAM` makes segmenters."""

    shapes: Sequence[Shape]
    variant: str | None = None
    requested: list[tuple[int, int]] = field(default_factory=list)
    made: list[DiscSegmenter] = field(default_factory=list)

    def segmenter(self, *, points_per_batch: int, encoder_batch_size: int = 1) -> DiscSegmenter:
        self.requested.append((points_per_batch, encoder_batch_size))
        self.made.append(DiscSegmenter(self.shapes, self.variant))
        return self.made[-1]
