"""Draws the next click of a training prompt: a pixel in which a mask and its target differ.

Random numbers come with the batch, so that every backend, and a training that was resumed, clicks
in the same places.

Shapes: `N` prompts, `H W` low-res grid.

Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A: points are drawn uniformly from the
error region; foreground where mask is missing, background where there is too much.
"""

from __future__ import annotations

from typing import Any

from keras import ops


def draw_error_points(logits: Any, targets: Any, draws: Any) -> tuple[Any, Any, Any]:
    """Draw one wrong pixel of each mask; of a mask without a fault, a pixel of its target.

    Args:
        logits: Mask logits `(N, H, W)`.
        targets: Coverage in [0, 1], `(N, H, W)`; at least half counts as covered.
        draws: Uniform random numbers in [0, 1), `(N,)`.

    Returns:
        Rows and columns, int32 `(N,)`, and whether the target covers the pixel, int32 `(N,)`: the
        click's label. Where there is neither a fault nor a target, the last pixel.
    """
    covered = targets >= 0.5
    wrong = ops.cast(ops.not_equal(logits > 0.0, covered), "int32")
    covered = ops.cast(covered, "int32")
    has_fault = ops.sum(wrong, axis=(1, 2), keepdims=True) > 0
    candidates = ops.where(has_fault, wrong, covered)
    # First the row, then the column: two short sums instead of one over all pixels.
    by_row = ops.sum(candidates, axis=2)
    total = ops.sum(by_row, axis=1)
    chosen = ops.cast(draws * ops.cast(total, "float32"), "int32")
    chosen = ops.minimum(chosen, ops.maximum(total - 1, 0))
    rows, rest = _locate(by_row, chosen)
    row = ops.take_along_axis(candidates, rows[:, None, None], axis=1)[:, 0]
    columns, _ = _locate(row, rest)
    at_row = ops.take_along_axis(covered, rows[:, None, None], axis=1)[:, 0]
    return rows, columns, ops.take_along_axis(at_row, columns[:, None], axis=1)[:, 0]


def _locate(counts: Any, chosen: Any) -> tuple[Any, Any]:
    """Find in which bin `(N, bins)` an item counted from 0 lies, and its number there."""
    ends = ops.cumsum(counts, axis=1)
    bins = ops.sum(ops.cast(ends <= chosen[:, None], "int32"), axis=1)
    bins = ops.minimum(bins, counts.shape[1] - 1)
    before = ops.take_along_axis(ends - counts, bins[:, None], axis=1)[:, 0]
    return bins, chosen - before
