from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg_pipeline.storage.mask_table import MASK_SCHEMA, encode_table, read_table
from amg_pipeline.storage.verification import shard_faults
from tests.storage.doubles import METADATA, failed_result, make_record, make_result

RESULTS = [make_result("a.jpg"), failed_result(), make_result("z.jpg", masks=0)]
IMAGES = [result.ref for result in RESULTS]


def faults(data: bytes, **changes: Any) -> list[str]:
    expected: dict[str, Any] = {"fingerprint": METADATA.fingerprint, "images": IMAGES, **changes}
    return list(shard_faults(data, **expected))


def edited(edit: Callable[[list[dict[str, Any]]], object]) -> bytes:
    """A table whose rows were changed behind the package's back."""
    table = read_table(encode_table(RESULTS, METADATA))
    rows = table.to_pylist()
    edit(rows)
    schema = MASK_SCHEMA.with_metadata(table.schema.metadata)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    return sink.getvalue()


def test_sound_shard_has_no_faults() -> None:
    assert faults(encode_table(RESULTS, METADATA)) == []
    assert faults(edited(lambda rows: None)) == []


def test_empty_mask_is_sound() -> None:
    empty = replace(RESULTS[0], masks=(make_record(np.zeros((6, 9), dtype=bool)),))
    assert faults(encode_table([empty, *RESULTS[1:]], METADATA)) == []


@pytest.mark.parametrize(
    ("score", "is_sound"), [("stability_score", True), ("predicted_iou", False)]
)
def test_empty_mask_may_have_no_stability(score: str, is_sound: bool) -> None:
    record = replace(make_record(np.zeros((6, 9), dtype=bool)), **{score: float("nan")})
    empty = replace(RESULTS[0], masks=(record,))
    found = faults(encode_table([empty, *RESULTS[1:]], METADATA))
    assert [fault for fault in found if "finite" not in fault] == []
    assert (found == []) is is_sound


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        pytest.param(lambda r: r[0]["masks"][0].update(area=1), "area is", id="area"),
        pytest.param(
            lambda r: r[0]["masks"][1].update(bbox=[0.0, 0.0, 1.0, 1.0]), "mask 1.*box is", id="box"
        ),
        pytest.param(
            lambda r: r[0]["masks"][0].update(counts="5"), "sum to 54", id="RLE of another size"
        ),
        pytest.param(lambda r: r[0]["masks"][0].update(counts="~"), "characters", id="no RLE"),
        pytest.param(
            lambda r: r[0]["masks"][0].update(crop_box=[0, 0, 10, 6]), "crop_box", id="crop box"
        ),
        pytest.param(
            lambda r: r[0]["masks"][0].update(predicted_iou=float("nan")), "finite", id="no score"
        ),
        pytest.param(
            lambda r: r[0]["masks"][0].update(stability_score=float("nan")),
            "finite",
            id="no stability",
        ),
        pytest.param(lambda r: r[0].update(num_masks=5), "num_masks", id="count"),
        pytest.param(lambda r: r[0].update(status="fine"), "status must be one", id="status"),
        pytest.param(lambda r: r[0].update(error_type="X"), "no error", id="ok with error"),
        pytest.param(lambda r: r[2].update(width=None), "must have a size", id="ok without size"),
        pytest.param(lambda r: r[1].update(error_type=None), "error_type", id="failed, no reason"),
        pytest.param(
            lambda r: r[1].update(masks=r[0]["masks"], num_masks=2), "no masks", id="failed, masks"
        ),
        pytest.param(lambda r: r[1].update(image_id="x"), "row 1 must be 'bad.jpg'", id="image_id"),
        pytest.param(lambda r: r[1].update(uri="x"), "found 'bad.jpg' at 'x'", id="uri"),
        pytest.param(lambda r: r.reverse(), "row 0 must be 'a.jpg'", id="order"),
        pytest.param(lambda r: r.pop(), "3 rows; found 2", id="missing row"),
    ],
)
def test_faults_of_rows(edit: Callable[[Any], object], message: str) -> None:
    found = faults(edited(edit))
    assert found
    assert re.search(message, "\n".join(found))


def test_counts_of_the_footer_are_those_of_the_rows() -> None:
    def another_status(rows: list[dict[str, Any]]) -> None:
        rows[1].update(status="too_large", error_type="ImageTooLargeError")

    (fault,) = faults(edited(another_status))
    assert fault.startswith('the footer must count the rows, {"images":{"ok":2,"too_large":1}')


def test_faults_of_the_file() -> None:
    data = encode_table(RESULTS, METADATA)
    (fault,) = faults(data[:-20])
    assert "complete Parquet" in fault
    (fault,) = faults(data, fingerprint="f" * 64)
    assert "fingerprint" in fault
    (fault,) = faults(encode_table(RESULTS, replace(METADATA, schema_version=2)))
    assert "schema version 1" in fault
