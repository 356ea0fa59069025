"""The quality scores of masks, and which masks they keep.

Scores and thresholds are compared in float32, as in the reference: 0.88 means the float32 next
to it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.config import AmgSettings
from amg_pipeline.records import CropBox


def passes_predicted_iou(predicted_iou: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Tell which masks have a predicted IoU above the threshold, any shape; 0 keeps all."""
    if threshold <= 0:
        return np.ones(predicted_iou.shape, bool)
    passes: NDArray[np.bool_] = predicted_iou > np.float32(threshold)
    return passes


def stability_scores(
    stable_pixels: NDArray[np.int64], possible_pixels: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Measure how little masks change when their threshold moves.

    Args:
        stable_pixels: Pixels above the threshold plus the offset, `(M,)`.
        possible_pixels: Pixels above the threshold minus the offset, `(M,)`.

    Returns:
        The IoU of the two masks, float32 `(M,)`; NaN where both are empty.

    Source:
        Kirillov et al. 2023 (arXiv:2304.02643), appendix B; `calculate_stability_score` of the
        reference, whose int16 row sums overflow in images wider than 32767 pixels; ours do not.
    """
    with np.errstate(invalid="ignore"):
        scores: NDArray[np.float32] = np.divide(
            stable_pixels.astype(np.float32), possible_pixels.astype(np.float32)
        )
    return scores


def passes_stability(stability_score: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Tell which masks have a stability score of at least the threshold.

    At 0 every mask passes, also the empty ones, whose score is NaN; above 0 they never do.
    """
    if threshold <= 0:
        return np.ones(stability_score.shape, bool)
    passes: NDArray[np.bool_] = stability_score >= np.float32(threshold)
    return passes


def passes_areas(
    area: NDArray[np.int64], settings: AmgSettings, *, image_area: NDArray[np.int64] | int
) -> NDArray[np.bool_]:
    """Tell which masks have a wanted area.

    Args:
        area: Pixels of final masks, `(M,)`.
        settings: `min_area`, `max_area` and `max_area_fraction`.
        image_area: Pixels of the image, or `(M,)` of the image of each.
    """
    passes: NDArray[np.bool_] = area >= settings.min_area
    if settings.max_area is not None:
        passes &= area <= settings.max_area
    if settings.max_area_fraction < 1:
        passes &= area < settings.max_area_fraction * image_area
    return passes


def crop_scores(crops: Iterable[CropBox]) -> NDArray[np.float32]:
    """Rank masks by the crops they were found in, smaller crops first: one over the area."""
    areas = np.array([crop.height * crop.width for crop in crops], np.float32)
    scores: NDArray[np.float32] = np.reciprocal(areas)
    return scores
