"""Parts of a grid: cut, worked on, left out and joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from amg_pipeline.sam.grid_parts import GridParts
from tests.sam.small_sam import as_arrays

sizes = st.tuples(st.integers(1, 3), st.integers(1, 3))


def numbered(grid: tuple[int, int]) -> Any:
    """Positions that know their place, `(2, H W, 3)`."""
    places = np.arange(2 * grid[0] * grid[1] * 3, dtype=np.float32)
    return ops.convert_to_tensor(places.reshape(2, grid[0] * grid[1], 3))


def blocks(part: tuple[int, int]) -> Any:
    """Give the function that puts positions `(2, r c, 3)` in rows and columns, `(2, 3, r, c)`."""
    return lambda x: ops.moveaxis(ops.reshape(x, (2, *part, 3)), -1, 1)


@settings(deadline=None, max_examples=30)
@given(counts=sizes, part=sizes)
def test_parts_joined_again_are_the_grid(counts: tuple[int, int], part: tuple[int, int]) -> None:
    grid = (counts[0] * part[0], counts[1] * part[1])
    parts, x = GridParts(grid, part), numbered(grid)
    joined = parts.join(parts.map(blocks(part), parts.cut(x, axis=1)))
    np.testing.assert_array_equal(as_arrays(joined), as_arrays(blocks(grid)(x)))


@settings(deadline=None, max_examples=30)
@given(counts=sizes, part=sizes, rows=st.integers(0, 9), columns=st.integers(0, 9))
def test_a_part_is_wanted_if_it_has_a_position_that_is(
    counts: tuple[int, int], part: tuple[int, int], rows: int, columns: int
) -> None:
    grid = (counts[0] * part[0], counts[1] * part[1])
    used = np.zeros(grid, bool)
    used[:rows, :columns] = True
    parts = GridParts(grid, part)
    cut = as_arrays(parts.cut(ops.convert_to_tensor(used.reshape(1, -1)), axis=1))
    np.testing.assert_array_equal(parts.within(rows, columns), cut.any(axis=(1, 2)))


def test_pieces_are_cut_along_any_axis() -> None:
    parts, x = GridParts((4, 6), (2, 3)), numbered((4, 6))
    first = as_arrays(parts.cut(x, axis=1))
    last = as_arrays(parts.cut(ops.transpose(x, (0, 2, 1)), axis=2))
    assert first.shape == (4, 2, 6, 3)
    np.testing.assert_array_equal(last, first.transpose(0, 1, 3, 2))


@pytest.mark.parametrize("wanted", [[True] * 4, [False] * 4, [True, False, False, True]])
def test_what_is_not_wanted_is_blank(wanted: list[bool]) -> None:
    grid, part = (4, 6), (2, 3)
    every = GridParts(grid, part)
    some = GridParts(grid, part, np.array(wanted))
    pieces = every.cut(numbered(grid), axis=1)
    blank = ops.full((2, 3, *part), -1.0)
    mapped = as_arrays(some.map(blocks(part), pieces, blank))
    whole = as_arrays(every.map(blocks(part), pieces))
    for i, is_wanted in enumerate(wanted):
        np.testing.assert_array_equal(mapped[i], whole[i] if is_wanted else -1.0)
