"""Label Studio's run lengths, decoded by a reader written from the format alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amg_pipeline.export.brush import encode_brush
from amg_pipeline.export.pixels import MaskWindow


def decode(data: list[int]) -> np.ndarray:
    """Read bit after bit, as Label Studio's front end does."""
    bits = "".join(f"{byte:08b}" for byte in data)
    place = 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        repeated, length = read(1), read(sizes[read(2)]) + 1
        values += [read(word)] * length if repeated else [read(word) for _ in range(length)]
    return np.array(values)


def assert_encodes(mask: np.ndarray, window: MaskWindow) -> None:
    height, width = mask.shape
    pixels = decode(encode_brush(window, height=height, width=width)).reshape(height, width, 4)

    assert np.array_equal(pixels == 255, np.repeat(mask[..., None], 4, axis=2))
    assert set(np.unique(pixels)) <= {0, 255}


@given(
    mask=arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))),
    margin=st.tuples(*[st.integers(0, 3)] * 4),
)
def test_any_mask_comes_back(mask: np.ndarray, margin: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = margin
    whole = np.pad(mask, ((top, bottom), (left, right)))

    assert_encodes(whole, MaskWindow(mask, left, top))


@pytest.mark.parametrize("length", [2, 4, 5, 64, 65, 16_384, 16_385, 40_000])
def test_lengths_around_the_borders_of_notations_come_back(length: int) -> None:
    mask = np.zeros((1, length + 3), bool)
    mask[0, 2 : 2 + length] = True

    assert_encodes(mask, MaskWindow(mask[:, 2 : 2 + length], 2, 0))
