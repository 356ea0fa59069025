"""Writes a model's weights, each file whole or not at all."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from amg_pipeline.errors import ConfigError, WeightsError
from amg_pipeline.sam.weights.architecture import METADATA_KEY, SamArchitecture, of_model
from amg_pipeline.sam.weights.safetensors_file import write_safetensors
from amg_pipeline.sam.weights.source import Source, shown, transfer_errors
from amg_pipeline.sam.weights.tensors import SourceTensor
from amg_pipeline.sam.weights.torch_writer import write_torch_checkpoint
from amg_pipeline.sam.weights.variables import official_tensors

#: Endings that hold an official state dict, and endings that Keras writes itself.
STATE_DICT_ENDINGS = (".safetensors", ".pth")
KERAS_ENDINGS = (".weights.h5", ".keras")


def save_weights(model: Any, destination: Source, *, dtype: str = "float32") -> None:
    """Write a model's weights; the ending of `destination` picks the format.

    - `.safetensors` and `.pth`: the official state-dict names with PyTorch's layouts, as the
      reference implementation loads them. The safetensors header holds the architecture as JSON
      under `amg_pipeline`.
    - `.keras`: the whole model. `.weights.h5`: its variables. Both as Keras writes them.

    Args:
        model: A built `SAM`.
        destination: Path or URI. What was there is replaced in one step.
        dtype: `float32`, or `float16` to halve a `.safetensors` file.

    Raises:
        ConfigError: If the ending is unknown or does not go with `dtype`.
        WeightsError: If a value is not finite in `dtype`, or writing fails.
    """
    ending = ending_of(destination)
    if dtype != "float32" and (dtype != "float16" or ending != ".safetensors"):
        raise ConfigError(
            "dtype must be float32, or float16 with .safetensors. "
            f"Received: {dtype!r} with {ending}"
        )
    if ending in STATE_DICT_ENDINGS:
        write_state_dict(official_tensors(model), of_model(model), destination, dtype=dtype)
        return
    with whole_file(destination) as path:
        if ending == ".keras":
            model.save(path)
        else:
            model.save_weights(path)


def write_state_dict(
    tensors: Mapping[str, SourceTensor],
    architecture: SamArchitecture,
    destination: Source,
    *,
    dtype: str = "float32",
) -> None:
    """Write official tensors as `.safetensors` or `.pth`, one in memory at a time."""
    with whole_file(destination) as path, path.open("wb") as file:
        if ending_of(destination) == ".pth":
            write_torch_checkpoint(file, tensors)
        else:
            metadata = {METADATA_KEY: architecture.to_json(), "format": "pt"}
            write_safetensors(file, tensors, dtype=dtype, metadata=metadata)


def ending_of(destination: Source) -> str:
    """Tell the format from a destination's ending.

    Raises:
        ConfigError: If it is none that can be written.
    """
    name = os.fspath(destination).lower()
    endings = STATE_DICT_ENDINGS + KERAS_ENDINGS
    for ending in endings:
        if name.endswith(ending):
            return ending
    raise ConfigError(
        f"The destination must end in one of {', '.join(endings)}. Received: {shown(destination)}"
    )


@contextmanager
def whole_file(destination: Source) -> Iterator[Path]:
    """Give a path to write to; what was written becomes `destination` when the context ends well.

    Raises:
        WeightsError: If the file cannot be written.
    """
    try:
        filesystem, target = fsspec.core.url_to_fs(os.fspath(destination))
    except transfer_errors() as error:
        raise _unwritable(destination, error) from error
    if isinstance(filesystem, LocalFileSystem):
        try:
            with _replacing(Path(target), ending_of(destination)) as path:
                yield path
        except OSError as error:
            raise _unwritable(destination, error) from error
        return
    with tempfile.TemporaryDirectory(prefix="amg-weights-") as folder:
        path = Path(folder) / f"weights{ending_of(destination)}"
        yield path
        try:
            filesystem.put_file(str(path), target)
        except transfer_errors() as error:
            raise _unwritable(destination, error) from error


def _unwritable(destination: Source, error: Exception) -> WeightsError:
    # A client's own text may hold a signed address or a key; the system's reason does not.
    reason = getattr(error, "strerror", None) or type(error).__name__
    return WeightsError(f"Expected to be able to write {shown(destination)}. Received: {reason}")


@contextmanager
def _replacing(target: Path, ending: str) -> Iterator[Path]:
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that the last step is a rename; Keras insists on the ending.
    path = target.with_name(f".{uuid.uuid4().hex}{ending}")
    try:
        yield path
        with path.open("rb+") as file:
            os.fsync(file.fileno())
        path.replace(target)
    finally:
        path.unlink(missing_ok=True)
