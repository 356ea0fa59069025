"""Writes a state dict as `torch.save` does, without torch.

The pickle is composed opcode by opcode, since Python's pickler would have to import torch for the
names in it.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from amg_pipeline.sam.weights.tensors import SourceTensor

#: Storages start on multiples of this, so that a mapped file can be used in place.
_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30
#: Tag and length of the extra field that holds the padding; the tag is the one torch uses.
_PADDING_FIELD = struct.Struct("<2sH")
_PADDING_TAG = b"FB"
_ROOT = "archive"
#: Zip's earliest date, so that equal weights give equal bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def write_torch_checkpoint(file: BinaryIO, tensors: Mapping[str, SourceTensor]) -> None:
    """Write tensors as an official `.pth`: an ordered state dict of float32 in torch's zip format.

    Args:
        file: Where to write; must be seekable.
        tensors: By official name, in the order to keep.
    """
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        _add(archive, file, "data.pkl", b"".join(_pickled(tensors)))
        _add(archive, file, "byteorder", b"little")
        for index, tensor in enumerate(tensors.values()):
            values = tensor.read_float32().astype("<f4", copy=False)
            _add(archive, file, f"data/{index}", values.tobytes())
        _add(archive, file, "version", b"3\n")


def _add(archive: zipfile.ZipFile, file: BinaryIO, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(f"{_ROOT}/{name}", _DATE)
    start = file.tell() + _LOCAL_HEADER_BYTES + len(info.filename) + _PADDING_FIELD.size
    padding = -start % _ALIGNMENT
    info.extra = _PADDING_FIELD.pack(_PADDING_TAG, padding) + bytes(padding)
    archive.writestr(info, data)


def _pickled(tensors: Mapping[str, SourceTensor]) -> Iterator[bytes]:
    yield pickle.PROTO + b"\x02"
    yield _EMPTY_ORDERED_DICT + pickle.MARK
    for index, (name, tensor) in enumerate(tensors.items()):
        yield _text(name)
        yield _global("torch._utils", "_rebuild_tensor_v2") + pickle.MARK
        yield pickle.MARK + _text("storage") + _global("torch", "FloatStorage")
        yield _text(str(index)) + _text("cpu") + _number(tensor.size) + pickle.TUPLE
        yield pickle.BINPERSID + _number(0)
        yield _tuple(tensor.shape) + _tuple(_strides(tensor.shape))
        yield pickle.NEWFALSE + _EMPTY_ORDERED_DICT + pickle.TUPLE + pickle.REDUCE
    yield pickle.SETITEMS + pickle.STOP


def _global(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


_EMPTY_ORDERED_DICT = _global("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE


def _text(text: str) -> bytes:
    encoded = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def _number(number: int) -> bytes:
    return pickle.BININT + struct.pack("<i", number)


def _tuple(numbers: tuple[int, ...]) -> bytes:
    return pickle.MARK + b"".join(map(_number, numbers)) + pickle.TUPLE


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for side in reversed(shape):
        strides.append(step)
        step *= side
    return tuple(reversed(strides))
