"""JSON as the exports write it: compact, without NaN, and the same for the same values."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ENCODE = json.JSONEncoder(separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode


def to_json(value: Any) -> str:
    """Write a value of Python's own types in one line."""
    return _ENCODE(value)


def to_json_bytes(value: Any) -> bytes:
    """Write a value of Python's own types as the content of a file."""
    return (_ENCODE(value) + "\n").encode()


def finite(column: NDArray[np.floating[Any]]) -> Iterable[float | None]:
    """Turn a column of scores into numbers of JSON, which has no NaN."""
    return [None if math.isnan(value) else value for value in column.tolist()]
