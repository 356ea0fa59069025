from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

from amg_pipeline.errors import ConfigError, WeightsError
from amg_pipeline.sam.weights import load_weights, save_weights, saving
from amg_pipeline.sam.weights.architecture import SamArchitecture
from amg_pipeline.sam.weights.safetensors_file import read_safetensors
from amg_pipeline.sam.weights.variables import official_tensors
from tests.sam.weights.conftest import Arrays

# Keras passes TensorFlow variables to np.array, and TensorFlow does not know NumPy 2's `copy` yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

ENDINGS = [".safetensors", ".pth", ".weights.h5", ".keras"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_save_and_load_round_trip(
    ending: str, small_model: Any, small_arrays: Arrays, tmp_path: Path
) -> None:
    path = tmp_path / "new folder" / f"w{ending}"
    save_weights(small_model, path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    for variable in small_model.variables:
        variable.assign(np.zeros(variable.shape, np.float32))
    load_weights(small_model, path)
    for name, tensor in official_tensors(small_model).items():
        np.testing.assert_array_equal(tensor.read(), small_arrays[name])


def test_save_keras_loads_by_keras_itself(
    small_model: Any, small_arrays: Arrays, tmp_path: Path
) -> None:
    import keras

    save_weights(small_model, tmp_path / "w.keras")
    loaded = keras.saving.load_model(tmp_path / "w.keras")
    for name, tensor in official_tensors(loaded).items():
        np.testing.assert_array_equal(tensor.read(), small_arrays[name])


def test_save_safetensors_header_holds_the_configuration(
    small_model: Any, small: SamArchitecture, tmp_path: Path
) -> None:
    save_weights(small_model, tmp_path / "w.safetensors")
    checkpoint = read_safetensors(tmp_path / "w.safetensors")
    flat = json.loads(checkpoint.metadata["amg_pipeline"])
    assert flat["variant"] is None
    assert flat["embed_dim"] == small.embed_dim
    assert flat["decoder_num_heads"] == 8
    assert {tensor.dtype for tensor in checkpoint.tensors.values()} == {"float32"}


def test_save_float16_safetensors(small_model: Any, small_arrays: Arrays, tmp_path: Path) -> None:
    save_weights(small_model, tmp_path / "w.safetensors", dtype="float16")
    tensors = read_safetensors(tmp_path / "w.safetensors").tensors
    for name, array in small_arrays.items():
        assert tensors[name].dtype == "float16"
        np.testing.assert_array_equal(tensors[name].read(), array.astype(np.float16))


@pytest.mark.parametrize(
    ("name", "dtype", "reason"),
    [
        ("w.pth", "float16", r"float16. with \.pth"),
        ("w.safetensors", "int8", "'int8'"),
        ("w.bin", "float32", "must end in one of"),
        ("w", "float32", "must end in one of"),
    ],
)
def test_save_in_another_way_is_refused(
    name: str, dtype: str, reason: str, small_model: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=reason):
        save_weights(small_model, tmp_path / name, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_save_to_an_object_store(ending: str, small_model: Any) -> None:
    uri = f"memory://saved-{uuid.uuid4().hex}/w{ending}"
    save_weights(small_model, uri)
    load_weights(small_model, uri)
    with fsspec.open(uri, "rb") as file:
        assert file.read(1)


def test_save_that_fails_keeps_what_was_there(small_model: Any, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")
    small_model.variables[0].assign(np.full(small_model.variables[0].shape, np.inf))
    with pytest.raises(WeightsError, match="finite"):
        save_weights(small_model, path)
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["w.safetensors"]


def test_save_where_a_file_stands_for_the_folder_is_refused(
    small_model: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        WeightsError, match=r"able to write .*w\.pth.*Received: (File exists|Not a)"
    ):
        save_weights(small_model, tmp_path / "file" / "w.pth")


def test_save_to_an_unknown_protocol_hides_credentials(small_model: Any) -> None:
    with pytest.raises(WeightsError, match=r"able to write nosuch://bucket/w\.pth") as caught:
        save_weights(small_model, "nosuch://key:secret@bucket/w.pth")
    assert "secret" not in str(caught.value)


def test_save_to_a_store_that_refuses_is_reported(
    small_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError("secret")

    monkeypatch.setattr(MemoryFileSystem, "put_file", refuse)
    with pytest.raises(WeightsError, match="PermissionError") as caught:
        save_weights(small_model, "memory://bucket/w.pth")
    assert "secret" not in str(caught.value)


def test_ending_of_ignores_case() -> None:
    assert saving.ending_of("A.SafeTensors") == ".safetensors"
    assert saving.ending_of(Path("a.weights.h5")) == ".weights.h5"
