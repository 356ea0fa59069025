"""Clicks at segments as a person would make them, and what a model makes of these.

Source:
    The most inner point is that of the interior distance transform (Kirillov et al. 2023,
    arXiv:2304.02643, appendix D.1); of missing and superfluous regions the one with the deepest
    point is corrected, as the click protocol of RITM (Sofiiuk et al. 2021) has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amg_pipeline.amg.rle import decode_mask, encode_mask
from amg_pipeline.evaluation.point_model import BACKGROUND, FOREGROUND, PointModel
from amg_pipeline.records import Rle

Placement = Literal["center", "random"]


@dataclass(frozen=True, slots=True)
class ClickedSegments:
    """What came of clicking at `N` segments of one image, `K` clicks each.

    A segment that was met exactly gets no further clicks: its numbers stay.

    Attributes:
        points: XY of the clicks in pixels, int64 `(N, K, 2)`.
        labels: `FOREGROUND` or `BACKGROUND`, int32 `(N, K)`.
        ious: IoU of the three outputs with the segment, float32 `(N, K, 3)`.
        predicted_iou: What the model made of them, float32 `(N, K, 3)`.
        masks: The top-scored masks after the last click.
    """

    points: NDArray[np.int64]
    labels: NDArray[np.int32]
    ious: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    masks: tuple[Rle, ...]

    @property
    def best_iou(self) -> NDArray[np.float32]:
        """IoU of the best of the three outputs, float32 `(N, K)`."""
        best: NDArray[np.float32] = self.ious.max(axis=2)
        return best

    @property
    def top_iou(self) -> NDArray[np.float32]:
        """IoU of the output with the highest predicted IoU, float32 `(N, K)`."""
        top = self.predicted_iou.argmax(axis=2)[..., np.newaxis]
        chosen: NDArray[np.float32] = np.take_along_axis(self.ious, top, axis=2)[..., 0]
        return chosen


def most_inner_point(region: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Find the pixel of a region that is farthest from its outside.

    Args:
        region: Bool `(height, width)`, not empty; what is beyond the image is outside.

    Returns:
        Its x and y, and its exact Euclidean distance to the nearest pixel outside. Of equal
        ones the first, row by row.
    """
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    window = region[top : rows[-1] + 1, left : columns[-1] + 1]
    depth = ndimage.distance_transform_edt(np.pad(window, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return left + int(x), top + int(y), float(depth[y, x])


def click_segments(
    model: PointModel,
    embedding: Any,
    segments: Sequence[Rle],
    *,
    clicks: int,
    placement: Placement,
    seeds: Sequence[Sequence[int]],
) -> ClickedSegments:
    """Click at each segment of an image and correct what comes of it.

    Args:
        model: What segments.
        embedding: The image, encoded by it.
        segments: What to click at.
        clicks: Clicks at each.
        placement: Where in a region clicks fall.
        seeds: Of the random clicks at each segment.
    """
    size = model.prompts_per_batch
    batches = [
        _click_batch(
            model,
            embedding,
            [decode_mask(segment) for segment in segments[start : start + size]],
            clicks=clicks,
            placement=placement,
            seeds=seeds[start : start + size],
        )
        for start in range(0, len(segments), size)
    ]
    return ClickedSegments(
        points=np.concatenate([np.empty((0, clicks, 2), np.int64), *(b.points for b in batches)]),
        labels=np.concatenate([np.empty((0, clicks), np.int32), *(b.labels for b in batches)]),
        ious=np.concatenate([np.empty((0, clicks, 3), np.float32), *(b.ious for b in batches)]),
        predicted_iou=np.concatenate(
            [np.empty((0, clicks, 3), np.float32), *(b.predicted_iou for b in batches)]
        ),
        masks=tuple(mask for batch in batches for mask in batch.masks),
    )


def _click_batch(
    model: PointModel,
    embedding: Any,
    truths: list[NDArray[np.bool_]],
    *,
    clicks: int,
    placement: Placement,
    seeds: Sequence[Sequence[int]],
) -> ClickedSegments:
    count = len(truths)
    generators = [np.random.default_rng(seed) for seed in seeds]
    points = np.zeros((count, clicks, 2), np.int64)
    labels = np.full((count, clicks), FOREGROUND, np.int32)
    ious = np.zeros((count, clicks, 3), np.float32)
    predicted = np.zeros((count, clicks, 3), np.float32)
    masks = [np.zeros_like(truth) for truth in truths]
    is_done = np.zeros(count, bool)
    logits = None
    for click in range(clicks):
        for i, truth in enumerate(truths):
            clicked = points[i, :click]
            found = _next_click(truth, masks[i], clicked, placement, generators[i])
            if found is None:
                is_done[i] = True
                points[i, click], labels[i, click] = points[i, click - 1], labels[i, click - 1]
            else:
                points[i, click], labels[i, click] = found
        outputs = model.decode(
            embedding,
            points[:, : click + 1].astype(np.float64),
            labels[:, : click + 1],
            logits,
        )
        tops = outputs.predicted_iou.argmax(axis=1)
        for i, truth in enumerate(truths):
            if is_done[i]:
                ious[i, click], predicted[i, click] = ious[i, click - 1], predicted[i, click - 1]
                continue
            full = model.full_size(embedding, outputs.logits[i]) > 0
            ious[i, click] = [mask_iou(mask, truth) for mask in full]
            predicted[i, click] = outputs.predicted_iou[i]
            masks[i] = full[tops[i]]
        logits = outputs.logits[np.arange(count), tops]
    return ClickedSegments(points, labels, ious, predicted, tuple(map(encode_mask, masks)))


def _next_click(
    truth: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    clicked: NDArray[np.int64],
    placement: Placement,
    rng: np.random.Generator,
) -> tuple[tuple[int, int], int] | None:
    """Place a click where a mask is wrong; None where nothing is, or only what was clicked."""
    missing, superfluous = truth & ~mask, mask & ~truth
    for region in (missing, superfluous):
        region[clicked[:, 1], clicked[:, 0]] = False
    if placement == "random":
        wrong = np.flatnonzero(missing | superfluous)
        if not len(wrong):
            return None
        y, x = divmod(int(wrong[rng.integers(len(wrong))]), truth.shape[1])
        return (x, y), FOREGROUND if missing[y, x] else BACKGROUND
    candidates = [
        (*most_inner_point(region), label)
        for region, label in ((missing, FOREGROUND), (superfluous, BACKGROUND))
        if region.any()
    ]
    if not candidates:
        return None
    x, y, _, label = max(candidates, key=lambda candidate: candidate[2])
    return (x, y), label


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 1 for two empty ones."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0
