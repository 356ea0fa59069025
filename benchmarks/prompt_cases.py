"""Prompts of every kind, alone and combined, for images of any size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCase:
    """One prompt, or a batch of them, for one image.

    Attributes:
        name: What it is made of.
        points: Coords `(P, N, 2)` XY in pixels of the image, float64, and labels `(P, N)`.
        boxes: `(P, M, 4)` XYXY in pixels of the image, float64.
        masks: Low-res logits `(P, 1, h, w)`, float32.
        multimask_output: Three masks or one.
    """

    name: str
    points: tuple[NDArray[np.float64], NDArray[np.int64]] | None = None
    boxes: NDArray[np.float64] | None = None
    masks: NDArray[np.float32] | None = None
    multimask_output: bool = True

    @property
    def inputs(self) -> dict[str, Any]:
        """The prompts under the keys of the model's call."""
        given = {"points": self.points, "boxes": self.boxes, "masks": self.masks}
        return {key: value for key, value in given.items() if value is not None}


def prompt_cases(height: int, width: int, low_res_size: int) -> list[PromptCase]:
    """List prompts for an image.

    Args:
        height: Rows of the image.
        width: Columns of the image.
        low_res_size: Side of the model's low-res logits.
    """
    # Fractions of the image; the last point lies at its very corner.
    spots = np.array([[0.31, 0.42], [0.63, 0.27], [0.52, 0.81], [0.08, 0.93], [1.0, 1.0]])
    coords = spots * [width - 1, height - 1]
    rectangles = np.array([[0.1, 0.2, 0.6, 0.9], [0.45, 0.05, 0.95, 0.5]])
    boxes = rectangles * [width, height, width, height]
    one = (coords[None, :1], np.array([[1]]))
    several = (coords[None, :3], np.array([[1, 1, 0]]))
    batch = (coords[:, None], np.ones((len(coords), 1), np.int64))
    pairs = (coords[[[0, 1], [2, 3]]], np.array([[1, 0], [1, 1]]))
    box, two_boxes = boxes[None, :1], boxes[None]
    mask = _mask_prompt(low_res_size)
    return [
        PromptCase(name="point", points=one),
        PromptCase(name="point, single mask", points=one, multimask_output=False),
        PromptCase(name="3 points", points=several),
        PromptCase(name="box", boxes=box),
        PromptCase(name="box, single mask", boxes=box, multimask_output=False),
        PromptCase(name="2 boxes", boxes=two_boxes),
        PromptCase(name="mask", masks=mask),
        PromptCase(name="point + box", points=one, boxes=box),
        PromptCase(name="3 points + mask", points=several, masks=mask),
        PromptCase(name="box + mask", boxes=box, masks=mask, multimask_output=False),
        PromptCase(name="3 points + 2 boxes + mask", points=several, boxes=two_boxes, masks=mask),
        PromptCase(name="5 prompts of a point", points=batch),
        PromptCase(name="2 prompts of 2 points, box, mask", points=pairs,
                   boxes=boxes[:, None], masks=np.concatenate([mask, -mask])),
        PromptCase(name="no prompt"),
    ]  # fmt: skip


def _mask_prompt(size: int) -> NDArray[np.float32]:
    """Draw smooth logits of a blob with a ragged edge, `(1, 1, size, size)`."""
    rows, columns = np.mgrid[:size, :size] / size
    blob = 12.0 - 60.0 * np.hypot(rows - 0.55, columns - 0.4)
    ragged = 2.0 * np.sin(37.0 * rows) * np.cos(29.0 * columns)
    return (blob + ragged)[None, None].astype(np.float32)
