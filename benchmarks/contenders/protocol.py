"""What every contender does when it is asked: the same work in the same steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

#: Prompts of one decoder call, in all contenders.
POINTS_PER_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is asked of all contenders of a run.

    Attributes:
        model: Name in `seeded_weights.MODELS`.
        points_per_side: Density of the grid.
        pred_iou_thresh: As in the reference; None for the model's own, of this project alone.
        stability_score_thresh: The same.
        threads: Threads that a contender may use.
        weights: Official safetensors file for this project's contenders, which load it as a user's
            run does; the others fill their own variables with the same values. None for the
            packaged weights.
        crop_n_layers: As in the reference; of this project alone.
    """

    model: str
    points_per_side: int
    pred_iou_thresh: float | None = None
    stability_score_thresh: float | None = None
    threads: int
    weights: str | None = None
    crop_n_layers: int = 0

    def to_json(self) -> dict[str, Any]:
        """Give all fields as a dictionary."""
        return asdict(self)


class Contender(Protocol):
    """One implementation, loaded and ready. The steps are to be called in their order."""

    def embed(self, photo: NDArray[np.uint8]) -> None:
        """Bring a photo into the model frame and embed it."""
        ...

    def score(self, points: NDArray[np.float64]) -> NDArray[np.float32]:
        """Run point prompts, `(P, 2)` XY in pixels, up to their scores `(P, 3)`."""
        ...

    def measure(self) -> int:
        """Make, filter and measure the masks of what was scored last; tells how many are left."""
        ...

    def logits(self) -> NDArray[np.float32]:
        """Give the low-res logits of what was scored last, `(P, 3, h, w)`."""
        ...

    def generate(self, photo: NDArray[np.uint8]) -> int:
        """Find all masks of a photo; tells how many."""
        ...

    def work(self, photo: NDArray[np.uint8], points: NDArray[np.float64]) -> dict[str, Any]:
        """Count the work of the steps and of all masks of a photo, if there is a way to."""
        ...


def grid_points(photo: NDArray[np.uint8], points_per_side: int, count: int) -> NDArray[np.float64]:
    """Give up to so many points of the grid, spread over all of it, XY in pixels."""
    height, width = photo.shape[:2]
    centres = (np.arange(points_per_side) + 0.5) / points_per_side
    x, y = np.meshgrid(centres * width, centres * height)
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return points[np.linspace(0, len(points) - 1, min(count, len(points))).astype(int)]
