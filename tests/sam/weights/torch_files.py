"""Builds `.pth` files by hand, sound and hostile, independently of the package's writer."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "bool": "BoolStorage",
}


class Named:
    """Pickles as a reference to `module.name`, without importing anything."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class Persistent:
    """Pickles as a persistent id."""

    def __init__(self, identifier: Any) -> None:
        self.identifier = identifier


def dumps(value: Any) -> bytes:
    """Pickle a structure of plain values and the classes above, by protocol 2."""
    return pickle.PROTO + b"\x02" + _dump(value) + pickle.STOP


def _dump(value: Any) -> bytes:
    if isinstance(value, Named):
        return pickle.GLOBAL + f"{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return _dump(value.function) + _dump(value.arguments) + pickle.REDUCE
    if isinstance(value, Persistent):
        return _dump(value.identifier) + pickle.BINPERSID
    if isinstance(value, OrderedDict):
        empty = _dump(Call(Named("collections", "OrderedDict")))
        return empty + _items(value)
    if isinstance(value, dict):
        return pickle.EMPTY_DICT + _items(value)
    if isinstance(value, tuple):
        return pickle.MARK + b"".join(map(_dump, value)) + pickle.TUPLE
    if isinstance(value, list):
        return pickle.EMPTY_LIST + pickle.MARK + b"".join(map(_dump, value)) + pickle.APPENDS
    # Without the protocol before and the stop after; plain values need no memo.
    return pickle.dumps(value, 2)[2:-1]


def _items(value: Mapping[Any, Any]) -> bytes:
    pairs = b"".join(_dump(key) + _dump(item) for key, item in value.items())
    return pickle.MARK + pairs + pickle.SETITEMS


def tensor(
    key: str,
    count: int,
    shape: tuple[Any, ...],
    strides: tuple[Any, ...],
    *,
    offset: Any = 0,
    dtype: str = "float32",
) -> Call:
    """Describe a tensor of storage `key` as torch does."""
    storage = Persistent(("storage", Named("torch", STORAGES[dtype]), key, "cpu", count))
    return Call(
        Named("torch._utils", "_rebuild_tensor_v2"),
        storage,
        offset,
        shape,
        strides,
        False,
        OrderedDict(),
    )


def contiguous(key: str, array: np.ndarray[Any, Any], *, dtype: str = "float32") -> Call:
    """Describe a whole array as a tensor of its own storage."""
    strides = tuple(int(step) // array.itemsize for step in np.empty_like(array).strides)
    return tensor(key, array.size, array.shape, strides, dtype=dtype)


def archive(members: Mapping[str, bytes], *, root: str = "archive") -> bytes:
    """Zip members under the root folder, uncompressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(f"{root}/{name}", data)
    return buffer.getvalue()


def write(path: Path, root: Any, storages: Mapping[str, bytes] | None = None) -> Path:
    """Write a `.pth` whose pickle is `root` (bytes as they are)."""
    data = root if isinstance(root, bytes) else dumps(root)
    members = {"data.pkl": data, "version": b"3\n"}
    members |= {f"data/{key}": value for key, value in (storages or {}).items()}
    path.write_bytes(archive(members))
    return path
