"""A data set of discs, and models that know it or part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.rle import encode_mask
from amg_pipeline.evaluation.annotated import AnnotatedImage, Annotation
from amg_pipeline.evaluation.point_model import PointOutputs

SIZE = (40, 60)


def disc(x: float, y: float, radius: float, size: tuple[int, int] = SIZE) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.hypot(columns - x, rows - y) <= radius


def annotated(
    image_id: str, *annotators: Sequence[NDArray[np.bool_]], size: tuple[int, int] = SIZE
) -> AnnotatedImage:
    return AnnotatedImage(
        image_id,
        lambda: np.zeros((*size, 3), np.uint8),
        lambda: tuple(Annotation(tuple(map(encode_mask, masks))) for masks in annotators),
    )


@dataclass
class GrowingModel:
    """Its top output is a disc of a fixed radius about all foreground clicks, less one about each
    background click; the others are empty. Low-res logits are at full size.
    """

    radius: float
    size: tuple[int, int] = SIZE
    prompts_per_batch: int = 4
    top: int = 1
    calls: list[tuple[int, int, bool]] = field(default_factory=list)
    num_encoded: int = 0

    def encode(self, image: NDArray[np.uint8]) -> None:
        self.num_encoded += 1

    def decode(
        self,
        embedding: None,
        points: NDArray[np.float64],
        labels: NDArray[np.int32],
        logits: NDArray[np.float32] | None = None,
    ) -> PointOutputs:
        self.calls.append((*labels.shape, logits is not None))
        made = np.full((len(points), 3, *self.size), -9.0, np.float32)
        for i, (prompt, meaning) in enumerate(zip(points, labels, strict=True)):
            for (x, y), label in zip(prompt, meaning, strict=True):
                made[i, self.top][disc(x, y, self.radius, self.size)] = 9.0 if label else -9.0
        scores = np.full((len(points), 3), 0.1, np.float32)
        scores[:, self.top] = 0.9
        return PointOutputs(made, scores)

    def full_size(self, embedding: None, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return logits
