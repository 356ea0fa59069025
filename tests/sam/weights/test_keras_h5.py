from __future__ import annotations

from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.keras_h5 import read_keras_h5

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_read_gives_datasets_by_path(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        file["layer/dense/vars/0"] = VALUES
        file["layer/vars/0"] = VALUES.astype(np.float16)
        file.create_group("layer/empty/vars")
    checkpoint = read_keras_h5(tmp_path / "a.weights.h5")
    assert checkpoint.format == "weights.h5"
    assert {n: (t.shape, t.dtype) for n, t in checkpoint.tensors.items()} == {
        "layer/dense/vars/0": ((2, 3), "float32"),
        "layer/vars/0": ((2, 3), "float16"),
    }
    np.testing.assert_array_equal(checkpoint.tensors["layer/dense/vars/0"].read(), VALUES)


def test_read_bfloat16_as_keras_stores_it(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        dataset = file.create_dataset("vars/0", data=VALUES.astype(ml_dtypes.bfloat16))
        dataset.attrs["dtype"] = "bfloat16"
    tensor = read_keras_h5(tmp_path / "a.weights.h5").tensors["vars/0"]
    assert tensor.dtype == "bfloat16"
    np.testing.assert_array_equal(tensor.read_float32(), VALUES)


def test_read_leaves_the_state_of_training_out(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        for name in (
            "vars/0",
            "optimizer/vars/0",
            "metrics/mean/vars/0",
            "a/seed_generator/vars/0",
        ):
            file[name] = VALUES
    assert list(read_keras_h5(tmp_path / "a.weights.h5").tensors) == ["vars/0"]


def test_read_external_storage_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        file.create_dataset("w", (6,), "f4", external=[(str(tmp_path / "secret"), 0, 24)])
    with pytest.raises(WeightsError, match="'w', stored elsewhere"):
        read_keras_h5(tmp_path / "a.weights.h5")


def test_read_virtual_dataset_is_refused(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((6,), "f4")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (6,))
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        file.create_virtual_dataset("w", layout)
    with pytest.raises(WeightsError, match="'w', stored elsewhere"):
        read_keras_h5(tmp_path / "a.weights.h5")


def test_read_follows_no_link(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = VALUES
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        file["w"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "x")
        file["v"] = h5py.SoftLink("/w")
    assert read_keras_h5(tmp_path / "a.weights.h5").tensors == {}


def test_read_damaged_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        file["w"] = VALUES
    data = (tmp_path / "a.weights.h5").read_bytes()
    (tmp_path / "b.weights.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"whole HDF5 file.*b\.weights\.h5"):
        read_keras_h5(tmp_path / "b.weights.h5")
