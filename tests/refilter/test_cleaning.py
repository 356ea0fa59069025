"""Changes of masks that no run makes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from amg_pipeline.amg.rle import decode_mask
from amg_pipeline.errors import ConfigError
from amg_pipeline.records import MaskRecord
from amg_pipeline.refilter.cleaning import (
    CleaningSettings,
    clean,
    fill_holes,
    keep_largest,
    smooth_edges,
)
from tests.storage.doubles import make_record

ROWS, COLUMNS = np.mgrid[:20, :24]


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(ROWS.shape, bool)
    mask[top:bottom, left:right] = True
    return mask


SQUARE = box(4, 5, 12, 15)


def cleaned(masks: list[np.ndarray], **settings: Any) -> list[np.ndarray]:
    records = [make_record(mask, score=0.9 - 0.1 * i) for i, mask in enumerate(masks)]
    found = clean(records, CleaningSettings(**settings))
    for record in found:
        assert record == pytest.approx(_measured(record))
    return [decode_mask(record.rle) for record in found]


def _measured(record: MaskRecord) -> MaskRecord:
    """The same record with its box measured anew."""
    from dataclasses import replace

    return replace(record, box_xyxy=make_record(decode_mask(record.rle)).box_xyxy)


def test_nothing_is_changed_by_default() -> None:
    record = make_record(SQUARE)

    assert clean([record], CleaningSettings()) == (record,)
    assert CleaningSettings().changes() == {}


@pytest.mark.parametrize(("at_most", "filled"), [(3, False), (4, True), (99, True)])
def test_holes_are_filled_up_to_a_size(at_most: int, filled: bool) -> None:
    holed = SQUARE & ~box(6, 7, 8, 9)

    [found] = cleaned([holed], fill_holes=at_most)

    assert np.array_equal(found, SQUARE if filled else holed)


def test_notch_and_corner_of_the_box_are_no_holes() -> None:
    notched = SQUARE & ~box(6, 5, 7, 9)
    disc = np.hypot(COLUMNS - 10, ROWS - 10) < 6

    assert np.array_equal(cleaned([notched, disc], fill_holes=999)[0], notched)
    assert np.array_equal(fill_holes(disc, at_most=999), disc)


@given(mask=arrays(bool, (6, 7)))
def test_filling_only_adds_and_largest_only_removes(mask: np.ndarray) -> None:
    assert (fill_holes(mask, at_most=100) >= mask).all()
    assert (keep_largest(mask) <= mask).all()
    assert keep_largest(mask).any() == mask.any()


def test_largest_component_stays() -> None:
    [found] = cleaned([SQUARE | box(15, 2, 18, 5)], largest_component=True)

    assert np.array_equal(found, SQUARE)


def test_smoothing_takes_spikes_and_keeps_the_border_of_the_image() -> None:
    spiked = box(0, 0, 10, 20) | box(10, 8, 16, 9)

    [found] = cleaned([spiked], smooth=2)

    assert not (found & box(11, 0, 24, 20)).any()
    assert (found & ~box(0, 0, 10, 20)).sum() <= 1
    assert found[:, :10].all()


def test_mask_that_smoothing_would_take_stays() -> None:
    line = box(3, 4, 12, 5)

    assert np.array_equal(smooth_edges(line, radius=3), line)


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        pytest.param({"max_iou": 0.79}, [0, 2, 3], id="iou"),
        pytest.param({"max_iou": 0.8}, [0, 1, 2, 3], id="iou-at-the-limit"),
        pytest.param({"max_containment": 0.9}, [0, 3], id="contained"),
        pytest.param({"max_iou": 0.79, "max_containment": 0.9}, [0, 3], id="both"),
    ],
)
def test_near_duplicates_are_dropped(settings: dict[str, float], kept: list[int]) -> None:
    masks = [box(0, 0, 10, 10), box(0, 0, 10, 8), box(2, 2, 5, 5), box(12, 0, 22, 10)]

    found = cleaned(masks, **settings)

    assert len(found) == len(kept)
    assert all(np.array_equal(a, masks[i]) for a, i in zip(found, kept, strict=True))


def test_disjoint_masks_leave_the_smaller_on_top_and_drop_the_hidden() -> None:
    big, small, twin = box(0, 0, 10, 10), box(2, 2, 6, 6), box(2, 2, 6, 6)

    found = cleaned([big, small, twin], disjoint=True)

    assert len(found) == 2
    assert np.array_equal(found[0], big & ~small)
    assert np.array_equal(found[1], small)


def test_empty_masks_pass_and_disjoint_drops_them() -> None:
    empty = np.zeros_like(SQUARE)

    assert len(cleaned([empty, SQUARE], smooth=2, fill_holes=3, max_containment=0.5)) == 2
    assert len(cleaned([empty, SQUARE], disjoint=True)) == 1
    assert cleaned([], disjoint=True, max_iou=0.5) == []


@pytest.mark.parametrize(
    "settings", [{"smooth": -1}, {"fill_holes": -1}, {"max_iou": 1.1}, {"max_containment": -0.1}]
)
def test_value_out_of_range_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="Received"):
        CleaningSettings(**settings)
