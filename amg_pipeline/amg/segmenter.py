"""The seam between the algorithm and a model: what a promptable segmenter must offer.

The algorithm hands over whole crops and float64 points in a crop's frame and gets NumPy arrays
back. What lies between `encode`, `score` and `measure` (embeddings, decoder state) stays on the
model's device behind two opaque handles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.records import MaskBatch


class ScoredPrompts(Protocol):
    """A batch of prompts after the decoder's token part, before any mask is made."""

    @property
    def predicted_iou(self) -> NDArray[np.float32]:
        """The model's estimate of the IoU of each prompt's outputs, float32 `(P, 3)`."""
        ...


Embedding = TypeVar("Embedding")
Scored = TypeVar("Scored", bound=ScoredPrompts)


@runtime_checkable
class Segmenter(Protocol[Embedding, Scored]):
    """A promptable segmenter with one foreground point per prompt and three outputs each."""

    @property
    def variant(self) -> str | None:
        """Name whose AMG defaults apply; None for a custom model."""
        ...

    def encode(self, crops: Sequence[NDArray[np.uint8]]) -> list[Embedding]:
        """Embed crops, each uint8 `(height, width, 3)` RGB, of any sizes, in their order."""
        ...

    def score(self, embedding: Embedding, points: NDArray[np.float64]) -> Scored:
        """Run point prompts, float64 `(P, 2)` XY in the crop's frame, up to their scores.

        The caller passes at most `points_per_batch` points; the segmenter may pad them to a fixed
        number, and `predicted_iou` has exactly `P` rows all the same.
        """
        ...

    def measure(
        self,
        scored: Scored,
        prompt_indices: NDArray[np.intp],
        mask_indices: NDArray[np.intp],
        *,
        stability_score_offset: float,
    ) -> MaskBatch:
        """Make and measure chosen masks of a scored batch at the crop's full resolution.

        Args:
            scored: What `score` returned.
            prompt_indices: Which prompts of the batch, `(M,)`.
            mask_indices: Which output, 0 to 2, of each of them, `(M,)`.
            stability_score_offset: Distance in logits by which the threshold is moved.
        """
        ...
