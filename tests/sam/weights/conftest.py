"""A small SAM for the tests of weights: as sizes, as official tensors, and as a model."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amg_pipeline.sam.weights.architecture import SamArchitecture, expected_shapes
from amg_pipeline.sam.weights.safetensors_file import write_safetensors
from amg_pipeline.sam.weights.tensors import SourceTensor
from tests.sam.small_sizes import SMALL

REFERENCE = Path(__file__).parents[2] / "reference" / "weights"

Arrays = dict[str, np.ndarray[Any, np.dtype[np.float32]]]
WriteSafetensors = Callable[..., Path]


@pytest.fixture
def small() -> SamArchitecture:
    return SMALL


@pytest.fixture(scope="session")
def small_arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in expected_shapes(SMALL).items()
    }


@pytest.fixture(scope="session")
def session_model() -> Any:
    from amg_pipeline.sam.weights.conversion import build_model

    return build_model(SMALL)


@pytest.fixture
def small_model(session_model: Any, small_arrays: Arrays) -> Any:
    """A built model that holds `small_arrays`, filled variable by variable through Keras."""
    from amg_pipeline.sam.weights.names import is_kernel, kernel_to_keras
    from amg_pipeline.sam.weights.variables import _variables

    for name, variable in _variables(session_model, small_arrays).items():
        values = small_arrays[name]
        variable.assign(kernel_to_keras(values) if is_kernel(name) else values)
    return session_model


@pytest.fixture
def write_small(tmp_path: Path) -> WriteSafetensors:
    """Write arrays as a safetensors file and give its path."""

    def write(arrays: Arrays, name: str = "small.safetensors", *, dtype: str = "float32") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            write_safetensors(file, source_tensors(arrays), dtype=dtype, metadata={})
        return path

    return write


def source_tensors(arrays: Arrays) -> dict[str, SourceTensor]:
    return {
        name: SourceTensor(name, array.shape, str(array.dtype), lambda array=array: array)
        for name, array in arrays.items()
    }


@pytest.fixture
def reference_file(tmp_path: Path) -> Callable[[str], Path]:
    """Unpack one of the committed checkpoints that other implementations wrote."""

    def unpack(name: str) -> Path:
        path = tmp_path / name
        path.write_bytes(gzip.decompress((REFERENCE / f"{name}.gz").read_bytes()))
        return path

    return unpack
