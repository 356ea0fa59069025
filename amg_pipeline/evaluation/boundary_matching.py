"""Which pixels of two thin boundaries are the same, up to a small distance.

As in the Berkeley benchmark, pixels are paired one to one so that the sum of distances is least,
where a pixel without a partner costs a hundred times the greatest distance; so as many as possible
are paired, and near ones before far ones.

Differences from the benchmark's own `correspondPixels`: the assignment is solved exactly, where it
rounds costs to hundredths and lets pixels stay alone only by a few random places; so results here
do not change from run to run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from scipy.spatial import KDTree

#: What a pixel without a partner costs, in greatest distances; once for either side.
_OUTLIER_COST = 100.0
#: Added to all costs, since a sparse matrix takes zeros for missing entries.
_OFFSET = 1.0
_FULL_CIRCLE = 256


def match_boundaries(
    found: NDArray[np.bool_], truth: NDArray[np.bool_], *, max_distance: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Pair the pixels of two boundaries.

    Args:
        found: Bool `(height, width)`.
        truth: Of the same shape.
        max_distance: Greatest distance of partners, in pixels.

    Returns:
        Which pixels of either have a partner.
    """
    matched = np.zeros_like(found), np.zeros_like(truth)
    first, second = np.argwhere(found), np.argwhere(truth)
    if not len(first) or not len(second):
        return matched
    pairs = KDTree(first).sparse_distance_matrix(
        KDTree(second), max_distance, output_type="coo_matrix"
    )
    rows, columns = pairs.row, pairs.col
    # What has nobody near stays alone anyway.
    near_rows, rows = np.unique(rows, return_inverse=True)
    near_columns, columns = np.unique(columns, return_inverse=True)
    count = len(near_rows)
    if not count:
        return matched
    alone = np.arange(count)
    # Each pixel may also be paired with nobody: a column of its own.
    costs = sparse.coo_array(
        (
            np.concatenate(
                [pairs.data + _OFFSET, np.full(count, 2 * _OUTLIER_COST * max_distance + _OFFSET)]
            ),
            (
                np.concatenate([rows, alone]),
                np.concatenate([columns, len(near_columns) + alone]),
            ),
        ),
        shape=(count, len(near_columns) + count),
    ).tocsr()
    chosen_rows, chosen_columns = min_weight_full_bipartite_matching(costs)
    is_pair = chosen_columns < len(near_columns)
    paired = (
        first[near_rows[chosen_rows[is_pair]]],
        second[near_columns[chosen_columns[is_pair]]],
    )
    for mask, pixels in zip(matched, paired, strict=True):
        mask[pixels[:, 0], pixels[:, 1]] = True
    return matched


def thin(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Thin lines to a width of one pixel, without breaking or shortening them.

    Args:
        mask: Bool `(height, width)`.

    Source:
        Guo and Hall 1989, "Parallel thinning with two-subiteration algorithms", as the benchmark's
        `bwmorph(..., 'thin', inf)` does it.
    """
    thinned = np.pad(mask, 1)
    while True:
        changed = False
        for goes in _DELETES:
            rows, columns = np.nonzero(thinned)
            gone = goes[_neighbours(thinned, rows, columns)]
            changed |= bool(gone.any())
            thinned[rows[gone], columns[gone]] = False
        if not changed:
            return thinned[1:-1, 1:-1].copy()


#: Neighbours counter-clockwise from the right, as (row, column) steps: x1 to x8 of the paper.
_STEPS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def _neighbours(
    mask: NDArray[np.bool_], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Write the neighbours of pixels as a number of eight bits each."""
    code = np.zeros(len(rows), np.intp)
    for bit, (dy, dx) in enumerate(_STEPS):
        code |= mask[rows + dy, columns + dx].astype(np.intp) << bit
    return code


def _deletion_tables() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell for each of 256 neighbourhoods whether either subiteration deletes the pixel."""
    codes = np.arange(_FULL_CIRCLE)
    x = [(codes >> bit & 1).astype(bool) for bit in range(8)]
    crossings = sum((~x[2 * i] & (x[2 * i + 1] | x[(2 * i + 2) % 8])).astype(int) for i in range(4))
    in_pairs = sum((x[2 * i] | x[2 * i + 1]).astype(int) for i in range(4))
    shifted = sum((x[2 * i + 1] | x[(2 * i + 2) % 8]).astype(int) for i in range(4))
    fewest = np.minimum(in_pairs, shifted)
    common = (crossings == 1) & (fewest >= 2) & (fewest <= 3)
    first = common & ~((x[1] | x[2] | ~x[7]) & x[0])
    second = common & ~((x[5] | x[6] | ~x[3]) & x[4])
    return first, second


_DELETES = _deletion_tables()
