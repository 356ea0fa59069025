"""The records that travel between the parts."""

from __future__ import annotations

import dataclasses
import pickle
from typing import get_args

import numpy as np
import pytest

from amg_pipeline import records
from amg_pipeline.records import (
    CONTENT_STATUSES,
    CropBox,
    ImageRef,
    ImageResult,
    ImageStatus,
    MaskRecord,
    Rle,
    Shard,
    ShardReport,
    is_settled,
)

CLASSES = [value for value in vars(records).values() if dataclasses.is_dataclass(value)]


@pytest.mark.parametrize(
    ("status", "error_type", "expected"),
    [
        ("ok", None, True),
        ("decode_error", "ImageDecodeError", True),
        ("too_large", "ImageTooLargeError", True),
        # Absence is a fact; a read that failed is not.
        ("fetch_error", "ImageNotFoundError", True),
        ("fetch_error", "TransientStorageError", False),
        ("fetch_error", None, False),
        ("out_of_memory", "MemoryError", False),
        ("crash", None, False),
        ("timeout", None, False),
    ],
)
def test_is_settled(status: str, error_type: str | None, expected: bool) -> None:
    assert is_settled(status, error_type) is expected


def test_content_statuses_are_statuses() -> None:
    assert set(get_args(ImageStatus)) > CONTENT_STATUSES


@pytest.mark.parametrize("record", CLASSES, ids=lambda record: record.__name__)
def test_record_is_frozen_and_slotted(record: type) -> None:
    assert record.__dataclass_params__.frozen
    assert "__slots__" in vars(record)


def test_every_record_is_tested() -> None:
    assert len(CLASSES) == 9


def test_crop_box_measures_itself() -> None:
    box = CropBox(2, 3, 10, 5, layer=1)

    assert (box.width, box.height) == (8, 2)
    assert box.xywh == (2, 3, 8, 2)


@pytest.mark.parametrize(
    ("counts", "area"),
    [
        pytest.param([12], 0, id="empty"),
        pytest.param([0, 12], 12, id="full"),
        pytest.param([3, 2, 4, 3], 5, id="two-runs"),
        pytest.param([0, 1, 11], 1, id="first-pixel"),
    ],
)
def test_rle_area(counts: list[int], area: int) -> None:
    assert Rle(3, 4, np.array(counts)).area == area


def test_image_result_defaults_to_no_masks_and_no_error() -> None:
    result = ImageResult(ImageRef("a", "/a"), "ok")

    assert result.masks == ()
    assert (result.width, result.height) == (None, None)
    assert (result.error_type, result.error_message) == (None, None)


def test_records_cross_processes() -> None:
    record = MaskRecord(
        rle=Rle(1, 2, np.array([1, 1])),
        box_xyxy=(1, 0, 1, 0),
        predicted_iou=0.9,
        stability_score=0.8,
        point_coords=(0.5, 0.5),
        crop_box=CropBox(0, 0, 2, 1, layer=0),
    )
    shard = Shard(3, (ImageRef("a", "/a", 5, "tag"),))
    report = ShardReport(3, {"ok": 1}, 0, 1, 100, {"load": 0.1}, 0.5)

    copy = pickle.loads(pickle.dumps((record, shard, report)))

    assert copy[0].rle.counts.tolist() == [1, 1]
    assert copy[0].crop_box == record.crop_box
    assert copy[1:] == (shard, report)
