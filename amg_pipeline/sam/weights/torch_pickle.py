"""Official checkpoints (`.pth`), read without torch and without executing anything in them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.pickle_machine import GlobalName, PickleMachine
from amg_pipeline.sam.weights.tensors import Array, Checkpoint, SourceTensor, widen_bfloat16
from amg_pipeline.sam.weights.torch_zip import TorchZip

_MAX_DIMENSIONS = 8

#: torch's storage classes, with the NumPy type of their bytes.
_STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}

#: Keys under which training scripts wrap the state dict, in the order in which they are tried.
_WRAPPERS = ("model", "state_dict", "model_state_dict", "module")


@dataclass(frozen=True, slots=True)
class _StorageType:
    dtype: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    key: str
    size: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_checkpoint(path: Path) -> Checkpoint:
    """Open a `.pth` file in torch's zip format.

    A state dict may be wrapped (`{"model": ...}`, `{"state_dict": ...}`) and its names may begin
    with `module.`, as training scripts leave them.

    Args:
        path: A local file.

    Returns:
        The checkpoint; its tensors are views of the mapped file until they are read.

    Raises:
        WeightsError: If the file is no zip archive of torch's, is damaged, or holds anything
            else than tensors, numbers, text and containers.
    """
    archive = TorchZip(path)
    root = _machine().load(archive.read_small("data.pkl"))
    order = archive.read_small("byteorder").strip() if "byteorder" in archive else b"little"
    if order not in (b"little", b"big"):
        raise WeightsError(f"Expected byte order little or big. Received: {order[:20]!r}")
    tensors = {
        name: _source_tensor(archive, name, tensor, big_endian=order == b"big")
        for name, tensor in _state_dict(root).items()
    }
    return Checkpoint("torch", tensors)


def _machine() -> PickleMachine:
    globals_: dict[str, Any] = {
        f"torch.{name}": _StorageType(dtype) for name, dtype in _STORAGE_DTYPES.items()
    }
    calls: dict[str, Callable[..., Any]] = {
        "collections.OrderedDict": _ordered_dict,
        "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
        "torch._utils._rebuild_parameter": _rebuild_parameter,
    }
    names = {path: GlobalName(path) for path in calls}
    return PickleMachine(
        {**globals_, **names}, {names[path]: call for path, call in calls.items()}, _storage
    )


def _ordered_dict(pairs: Any = ()) -> dict[str, Any]:
    if type(pairs) not in (list, tuple):
        raise TypeError("an ordered dict of something else than pairs")
    result: dict[str, Any] = {}
    for pair in pairs:
        key, value = pair
        if type(key) is not str:
            raise TypeError(f"a key of type {type(key).__name__}")
        result[key] = value
    return result


def _storage(identifier: Any) -> _Storage:
    if type(identifier) is not tuple or len(identifier) != 5 or identifier[0] != "storage":
        raise ValueError("a persistent id that is no storage")
    _, kind, key, _, size = identifier
    if not isinstance(kind, _StorageType) or type(key) is not str or not _is_count(size):
        raise ValueError("a storage without type, key and size")
    return _Storage(kind.dtype, key, size)


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any) -> _Tensor:
    sizes = (shape, strides)
    if not isinstance(storage, _Storage) or any(type(size) is not tuple for size in sizes):
        raise ValueError("a tensor without storage, shape and strides")
    if len(shape) != len(strides) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"a tensor of shape {len(shape)} with {len(strides)} strides")
    if not all(_is_count(number) for number in (offset, *shape, *strides)):
        raise ValueError("a tensor with negative or fractional sizes")
    count = math.prod(shape)
    reach = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
    if count > storage.size or (count and reach > storage.size) or offset > storage.size:
        raise ValueError(f"a tensor of {count} values beyond its storage of {storage.size}")
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(data: Any, *_rest: Any) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise TypeError("a parameter of something else than a tensor")
    return data


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**48


def _state_dict(root: Any) -> dict[str, _Tensor]:
    if type(root) is dict and not any(isinstance(value, _Tensor) for value in root.values()):
        root = next((root[key] for key in _WRAPPERS if type(root.get(key)) is dict), root)
    if type(root) is not dict or not root:
        raise WeightsError(
            "Expected a state dict, or one under 'model' or 'state_dict'. "
            f"Received: {type(root).__name__}"
        )
    strangers = [key for key, value in root.items() if not isinstance(value, _Tensor)]
    if strangers:
        shown = ", ".join(str(key)[:60] for key in strangers[:8])
        raise WeightsError(f"Expected tensors only in the state dict. Received: {shown}")
    prefix = "module." if all(str(key).startswith("module.") for key in root) else ""
    return {str(key)[len(prefix) :]: value for key, value in root.items()}


def _source_tensor(
    archive: TorchZip, name: str, tensor: _Tensor, *, big_endian: bool
) -> SourceTensor:
    storage = tensor.storage
    stored = np.dtype("uint16" if storage.dtype == "bfloat16" else storage.dtype)
    stored = stored.newbyteorder(">" if big_endian else "<")
    payload = archive.view(f"data/{storage.key}")
    if payload.size < storage.size * stored.itemsize:
        raise WeightsError(
            f"Expected {storage.size * stored.itemsize} bytes for {name!r}. "
            f"Received: {payload.size}"
        )

    def read() -> Array:
        flat: npt.NDArray[Any] = np.frombuffer(payload, stored, count=storage.size)
        strides = tuple(stride * stored.itemsize for stride in tensor.strides)
        # Bounds were checked when the tensor was rebuilt.
        values = np.lib.stride_tricks.as_strided(
            flat[tensor.offset :], tensor.shape, strides, writeable=False
        )
        values = values.astype(stored.newbyteorder("="))
        return widen_bfloat16(values) if storage.dtype == "bfloat16" else values

    return SourceTensor(name, tensor.shape, storage.dtype, read)
