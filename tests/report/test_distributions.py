"""Counting numbers while they pass."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.report.distributions import AREAS, NUMBERS, SCORES, Distribution


def count(scale: object, *parts: object, dtype: type = np.float32) -> Distribution:
    found = Distribution(scale)
    for part in parts:
        found.add(np.array(part, dtype))
    return found


@given(st.lists(st.floats(0, 1, width=32), max_size=60))
def test_bars_hold_every_score_once(values: list[float]) -> None:
    found = count(SCORES, values)

    bars = found.bars()

    assert sum(bar.count for bar in bars) == len(values) == found.total
    for bar, after in pairwise(bars):
        assert bar.end == after.start
    for bar in bars:
        # The float32 of a border may lie on either side of it.
        near = [v for v in values if bar.start - 1e-5 <= v <= bar.end + 1e-5]
        assert len(near) >= bar.count
    assert len(bars) <= 32


@pytest.mark.parametrize("border", [0.5, 0.88, 0.9, 0.95, 1.0])
def test_score_on_a_border_belongs_to_the_bar_below(border: float) -> None:
    bars = count(SCORES, [border, border - 0.02]).bars()

    assert bars[-1].end == pytest.approx(border)
    assert bars[-1].count == 1


def test_scores_beyond_one_and_below_nought_are_counted() -> None:
    found = count(SCORES, [1.02, -0.5, 7.0])

    assert found.total == 3
    assert found.bars()[-1].end == 2


def test_values_that_are_no_number_are_counted_apart() -> None:
    found = count(SCORES, [np.nan, 0.5], [np.nan])

    assert (found.total, found.num_nan) == (1, 2)
    assert count(SCORES, [np.nan]).bars() == ()


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=60))
def test_median_of_areas_is_known_to_two_per_cent(values: list[int]) -> None:
    median = count(AREAS, values, dtype=np.int64).quantile(0.5)

    assert median == pytest.approx(sorted(values)[(len(values) - 1) // 2], rel=0.022)


def test_empty_masks_have_a_bar_of_areas() -> None:
    assert count(AREAS, [0, 1], dtype=np.int64).bars()[0].count == 2


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=60))
def test_median_of_numbers_is_exact(values: list[int]) -> None:
    found = count(NUMBERS, values, dtype=np.int64)

    assert found.quantile(0.5) == sorted(values)[(len(values) - 1) // 2]
    assert found.quantile(1.0) == max(values)
    assert found.quantile(0.0) == min(values)


def test_numbers_have_bars_of_round_widths() -> None:
    bars = count(NUMBERS, [3, 98], dtype=np.int64).bars()

    assert (bars[0].start, bars[0].end, bars[-1].end) == (0, 5, 100)


def test_nothing_has_no_bars_and_no_median() -> None:
    assert Distribution(SCORES).bars() == ()
    assert Distribution(SCORES).quantile(0.5) is None


def test_many_values_are_counted_in_between() -> None:
    found = Distribution(SCORES)
    for _ in range(3):
        found.add(np.full(40_000, 0.5, np.float32))

    assert found._num_waiting < 2**16
    assert found.total == 120_000
