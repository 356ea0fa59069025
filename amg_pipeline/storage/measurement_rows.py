"""Rows of measurements as Parquet."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray


def encode_measurements(columns: Mapping[str, NDArray[Any]]) -> bytes:
    """Write columns of equal length as a Parquet file, zstd compressed.

    Args:
        columns: Texts, numbers or truth values by name; also without any rows.
    """
    arrays = {
        name: pa.array(values.tolist(), pa.string())
        if values.dtype.kind == "U"
        else pa.array(np.ascontiguousarray(values))
        for name, values in columns.items()
    }
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer, compression="zstd")
    return buffer.getvalue()
