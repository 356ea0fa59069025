"""What measurements ask of a model: clicks in, logits and scores out.

Wider than the generator's `Segmenter`: prompts have several clicks with labels, earlier logits go
back in, and logits come out, not only masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

FOREGROUND = 1
BACKGROUND = 0


@dataclass(frozen=True, slots=True)
class PointOutputs:
    """What a model says to `P` prompts.

    Attributes:
        logits: Low-res logits of three masks each, float32 `(P, 3, h, w)`.
        predicted_iou: The model's estimates of their IoU, float32 `(P, 3)`.
    """

    logits: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]


class PointModel(Protocol):
    """A promptable model; an image is encoded once for all its prompts."""

    @property
    def prompts_per_batch(self) -> int:
        """Prompts that one call of `decode` takes at most."""
        ...

    def encode(self, image: NDArray[np.uint8]) -> Any:
        """Embed an image, uint8 `(height, width, 3)` RGB."""
        ...

    def decode(
        self,
        embedding: Any,
        points: NDArray[np.float64],
        labels: NDArray[np.int32],
        logits: NDArray[np.float32] | None = None,
    ) -> PointOutputs:
        """Run prompts.

        Args:
            embedding: What `encode` returned.
            points: XY in pixels of the image, `(P, N, 2)`.
            labels: `FOREGROUND` or `BACKGROUND`, `(P, N)`.
            logits: Low-res logits of an earlier mask of each prompt, `(P, h, w)`.
        """
        ...

    def full_size(self, embedding: Any, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring low-res logits `(M, h, w)` to the image's size: float32 `(M, height, width)`.

        A pixel above 0 is mask.
        """
        ...
