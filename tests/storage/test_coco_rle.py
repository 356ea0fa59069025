from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco

from amg_pipeline.storage.coco_rle import compress_rle, parse_rle, tight_boxes_xywh
from tests.storage.doubles import mask_to_rle


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.bool_]:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    density = draw(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    return generator.random((height, width)) < density


@given(masks())
def test_text_is_pycocotools_own_and_reads_back(mask: NDArray[np.bool_]) -> None:
    rle = mask_to_rle(mask)
    text = compress_rle(rle)
    assert text == coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    parsed = parse_rle(text, height=rle.height, width=rle.width)
    np.testing.assert_array_equal(parsed.counts, rle.counts)
    assert parsed.area == int(mask.sum())


@given(masks())
def test_boxes_are_tight(mask: NDArray[np.bool_]) -> None:
    height, width = mask.shape
    (box,) = tight_boxes_xywh([compress_rle(mask_to_rle(mask))], height=height, width=width)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        assert box.tolist() == [0, 0, 0, 0]
        return
    assert box.tolist() == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]


def test_long_runs() -> None:
    """Seven characters per run and differences below zero."""
    rle = mask_to_rle(np.zeros((1, 1), dtype=bool))
    counts = np.array([3, 2_000_000_000, 1, 2, 2_000_000_000, 5], dtype=np.int64)
    big = type(rle)(50_000, 80_001, counts)
    total = int(counts.sum())
    text = compress_rle(big)
    assert parse_rle(text, height=1, width=total).counts.tolist() == counts.tolist()


def test_no_masks() -> None:
    assert tight_boxes_xywh([], height=3, width=4).shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "sum to 6", id="empty"),
        pytest.param("5", "sum to 6", id="too few pixels"),
        pytest.param("7", "sum to 6", id="too many pixels"),
        pytest.param("O", "runs of zero or more", id="negative run"),
        pytest.param("6P", "last one closed", id="cut short"),
        pytest.param("6!", "characters", id="below the alphabet"),
        pytest.param("6p", "characters", id="above the alphabet"),
        pytest.param("6é", "characters", id="not ASCII"),
        pytest.param("PPPPPPPP0", "at most 7", id="endless run"),
    ],
)
def test_malformed_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_rle(text, height=2, width=3)
