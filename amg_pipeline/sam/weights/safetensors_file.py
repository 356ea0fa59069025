"""The safetensors format: 8 bytes of header length, a JSON header, then raw little-endian values.

Written here rather than through the `safetensors` package because NumPy users of that package
cannot read bfloat16, and because the format is short: see the format section of
https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.tensors import Array, Checkpoint, SourceTensor, widen_bfloat16

_MAX_HEADER_BYTES = 100_000_000
_ALIGNMENT = 8

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def read_safetensors(path: Path) -> Checkpoint:
    """Open a safetensors file.

    Args:
        path: A local file.

    Returns:
        The checkpoint; its tensors are views of the mapped file until they are read.

    Raises:
        WeightsError: If header and data do not fit each other.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
            raise _damaged(path, f"a header of {length} bytes in a file of {size}")
        header = _parse_header(path, file.read(length))
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict or not all(type(text) is str for text in metadata.values()):
        raise _damaged(path, "metadata that is not text")
    data_size = size - 8 - length
    data: npt.NDArray[np.uint8] = (
        np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
        if data_size
        else np.empty(0, np.uint8)
    )
    tensors = {name: _source_tensor(path, name, entry, data) for name, entry in header.items()}
    _check_coverage(path, header, data_size)
    return Checkpoint("safetensors", tensors, metadata)


def write_safetensors(
    file: BinaryIO, tensors: Mapping[str, SourceTensor], *, dtype: str, metadata: Mapping[str, str]
) -> None:
    """Write tensors in order of their names, one in memory at a time.

    Args:
        file: Where to write.
        tensors: By name.
        dtype: `float32` or `float16`.
        metadata: Text for the header.

    Raises:
        WeightsError: If a value does not fit `dtype`.
    """
    stored = np.dtype(dtype).newbyteorder("<")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name in sorted(tensors):
        stop = offset + tensors[name].size * stored.itemsize
        header[name] = {
            "dtype": _CODES[dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, stop],
        }
        offset = stop
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in sorted(tensors):
        # Overflow is reported below, by name, rather than as a NumPy warning.
        with np.errstate(over="ignore"):
            values = tensors[name].read_float32().astype(stored)
        if not np.isfinite(values).all():
            raise WeightsError(
                f"Expected values that fit {dtype}. Received: larger ones in {name!r}"
            )
        file.write(values.tobytes())


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text, object_pairs_hook=_unique_pairs)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"a header that is no JSON object ({error})") from None
    if type(header) is not dict:
        raise _damaged(path, "a header that is no JSON object")
    return header


def _unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _source_tensor(path: Path, name: str, entry: Any, data: npt.NDArray[np.uint8]) -> SourceTensor:
    try:
        code, shape, (start, stop) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sound = type(code) is str and all(type(n) is int and n >= 0 for n in (*shape, start, stop))
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise _damaged(path, f"no dtype, shape and offsets for {name!r}")
    dtype = _DTYPES.get(code)
    if dtype is None:
        raise WeightsError(
            f"Expected one of the types {', '.join(_DTYPES)}. Received: {code!r} for {name!r}"
        )
    stored = np.dtype("uint16" if dtype == "bfloat16" else dtype).newbyteorder("<")
    if stop > data.size or stop - start != math.prod(shape) * stored.itemsize:
        raise _damaged(path, f"bytes {start} to {stop} for {name!r} of shape {shape}")

    def read() -> Array:
        values = np.frombuffer(data[start:stop], stored).reshape(shape)
        values = values.astype(stored.newbyteorder("="))
        return widen_bfloat16(values) if dtype == "bfloat16" else values

    return SourceTensor(name, shape, dtype, read)


def _check_coverage(path: Path, header: Mapping[str, Any], data_size: int) -> None:
    position = 0
    for start, stop in sorted(entry["data_offsets"] for entry in header.values()):
        if start != position:
            raise _damaged(path, f"tensors that overlap or leave a gap at byte {position}")
        position = stop
    if position != data_size:
        raise _damaged(path, f"{data_size} bytes of data where the header has {position}")


def _damaged(path: Path, what: str) -> WeightsError:
    return WeightsError(f"Expected a whole safetensors file. Received: {what} in {path.name}")
