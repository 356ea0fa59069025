"""Weights that Keras saved as HDF5 (`.weights.h5`), read without Keras."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.tensors import Array, Checkpoint, SourceTensor, widen_bfloat16

#: What Keras saves beside weights: the state of training, which a model does not need.
_TRAINING_STATE = re.compile(r"(optimizer|metrics|loss|_?compile_metrics|.*/seed_generator)/.*")


def read_keras_h5(path: Path) -> Checkpoint:
    """Open a `.weights.h5` file of this package or of a KerasHub preset.

    Args:
        path: A local file.

    Returns:
        The checkpoint, its tensors named by their place in the file (`.../vars/0`).

    Raises:
        WeightsError: If the file is no HDF5 or refers to data outside itself.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            tensors = {tensor.name: tensor for tensor in _tensors(path, file)}
    except (OSError, RuntimeError, KeyError) as error:
        raise WeightsError(
            f"Expected a whole HDF5 file of weights. Received: {path.name} ({error})"
        ) from None
    return Checkpoint("weights.h5", tensors)


def _tensors(path: Path, file: Any) -> Iterator[SourceTensor]:
    import h5py

    found: list[tuple[str, Any]] = []
    # visititems follows neither soft nor external links, so other files are never opened.
    file.visititems(lambda name, item: found.append((name, item)))
    for name, item in found:
        if not isinstance(item, h5py.Dataset) or _TRAINING_STATE.fullmatch(name):
            continue
        if item.external or item.is_virtual:
            raise WeightsError(
                f"Expected weights inside the file. Received: {name!r}, stored elsewhere"
            )
        is_bfloat16 = item.attrs.get("dtype") == "bfloat16"
        yield SourceTensor(
            name,
            tuple(int(side) for side in item.shape or ()),
            "bfloat16" if is_bfloat16 else str(item.dtype),
            _Reader(path, name, is_bfloat16=is_bfloat16),
        )


class _Reader:
    """Reads one dataset; the file is opened for as long as that takes."""

    def __init__(self, path: Path, name: str, *, is_bfloat16: bool) -> None:
        self._path, self._name, self._is_bfloat16 = path, name, is_bfloat16

    def __call__(self) -> Array:
        import h5py

        with h5py.File(self._path, "r") as file:
            values: Array = np.asarray(file[self._name][()])
        return widen_bfloat16(values.view(np.uint16)) if self._is_bfloat16 else values
