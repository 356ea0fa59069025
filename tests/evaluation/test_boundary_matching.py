from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment
from skimage import morphology

from amg_pipeline.evaluation.boundary_matching import match_boundaries, thin

MASKS = arrays(np.bool_, (6, 7))


@given(MASKS, MASKS, st.sampled_from([0.5, 1.0, 1.5, 2.3]))
def test_matching_is_as_large_as_the_best_and_one_to_one(
    found: np.ndarray, truth: np.ndarray, limit: float
) -> None:
    matched, recalled = match_boundaries(found, truth, max_distance=limit)

    first, second = np.argwhere(found), np.argwhere(truth)
    distances = np.hypot(*(first[:, None] - second[None]).transpose(2, 0, 1))
    pairs = linear_sum_assignment(np.where(distances <= limit, distances, 200.0 * limit + 1000))
    expected = int(np.count_nonzero(distances[pairs] <= limit))
    assert matched.sum() == recalled.sum() == expected
    assert not (matched & ~found).any()
    assert not (recalled & ~truth).any()


def test_of_two_near_pixels_the_nearer_is_matched() -> None:
    found, truth = np.zeros((5, 9), bool), np.zeros((5, 9), bool)
    found[2, 2] = found[2, 5] = True
    truth[2, 4] = True

    matched, _ = match_boundaries(found, truth, max_distance=3)

    assert np.argwhere(matched).tolist() == [[2, 5]]


def test_equal_boundaries_match_pixel_by_pixel_at_any_distance() -> None:
    line = np.zeros((9, 9), bool)
    line[4] = True

    matched, recalled = match_boundaries(line, line, max_distance=0.1)

    assert (matched == line).all()
    assert (recalled == line).all()


@pytest.mark.parametrize("found", [np.zeros((4, 4), bool), np.eye(4, dtype=bool)])
def test_nothing_matches_nothing(found: np.ndarray) -> None:
    matched, recalled = match_boundaries(found, np.zeros((4, 4), bool), max_distance=9)

    assert not matched.any()
    assert not recalled.any()


@given(arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_thinning_is_that_of_scikit_image(mask: np.ndarray) -> None:
    assert np.array_equal(thin(mask), morphology.thin(mask))
