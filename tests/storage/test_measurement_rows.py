from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amg_pipeline.storage.measurement_rows import encode_measurements


def test_columns_come_back() -> None:
    columns = {
        "image_id": np.array(["a", "Ünïcode"]),
        "iou": np.array([0.5, np.nan], np.float32),
        "is_good": np.array([True, False]),
        "click": np.arange(4, dtype=np.int32)[::2],
    }

    table = pq.read_table(io.BytesIO(encode_measurements(columns)))

    assert table.schema.types == [pa.string(), pa.float32(), pa.bool_(), pa.int32()]
    assert table["image_id"].to_pylist() == ["a", "Ünïcode"]
    assert table["click"].to_pylist() == [0, 2]


def test_no_rows_keep_their_types() -> None:
    empty = {"image_id": np.array([], np.str_), "area": np.array([], np.int64)}

    table = pq.read_table(io.BytesIO(encode_measurements(empty)))

    assert table.schema.types == [pa.string(), pa.int64()]
    assert table.num_rows == 0
