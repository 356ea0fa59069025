from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.architecture import SamArchitecture, expected_shapes
from amg_pipeline.sam.weights.checkpoint import leftovers, open_weights, require_fit
from tests.sam.weights.conftest import Arrays, WriteSafetensors


def test_require_fit_gives_every_tensor_in_order(
    small_arrays: Arrays, small: SamArchitecture, write_small: WriteSafetensors
) -> None:
    path = write_small(dict(reversed(small_arrays.items())))
    with open_weights(path) as opened:
        assert opened.format == "safetensors"
        tensors = require_fit(opened, expected_shapes(small), path)
        assert list(tensors) == list(small_arrays)
        for name, array in small_arrays.items():
            np.testing.assert_array_equal(tensors[name].read_float32(), array)


Edit = Callable[[Arrays], None]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        pytest.param(
            lambda a: a.pop("mask_decoder.iou_token.weight"),
            r"missing: mask_decoder\.iou_token\.weight \(1, 16\)$",
            id="missing",
        ),
        pytest.param(
            lambda a: a.update(extra=np.zeros((2, 3), np.float32)),
            r"left over: extra \(2, 3\)$",
            id="left-over",
        ),
        pytest.param(
            lambda a: a.update({"mask_decoder.iou_token.weight": np.zeros((16, 1), np.float32)}),
            r"of another shape: mask_decoder.iou_token.weight, expected \(1, 16\), received "
            r"\(16, 1\)$",
            id="another-shape",
        ),
        pytest.param(
            lambda a: a.update({f"x{i}": np.zeros(1, np.float32) for i in range(11)}),
            r"x\d+ \(1,\) and 3 more$",
            id="long-lists-are-cut",
        ),
    ],
)
def test_require_fit_names_what_is_left_over(
    edit: Edit,
    reason: str,
    small_arrays: Arrays,
    small: SamArchitecture,
    write_small: WriteSafetensors,
) -> None:
    arrays = dict(small_arrays)
    edit(arrays)
    path = write_small(arrays)
    with open_weights(path) as opened, pytest.raises(WeightsError, match=reason):
        require_fit(opened, expected_shapes(small), path)


def test_leftovers_lists_names_without_translation_too(
    reference_file: Callable[[str], Path], small: SamArchitecture
) -> None:
    path = reference_file("kerashub.weights.h5")
    with h5py.File(path, "a") as file:
        file["layers/stranger/vars/0"] = np.zeros(3, np.float32)
    with open_weights(path) as opened:
        found = leftovers(opened, expected_shapes(small))
    assert [tensor.name for tensor in found] == ["layers/stranger/vars/0"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("official.pth", "pth"),
        ("huggingface.safetensors", "huggingface"),
        ("kerashub.weights.h5", "kerashub"),
    ],
)
def test_open_weights_tells_the_format_by_content(
    name: str, expected: str, reference_file: Callable[[str], Path], tmp_path: Path
) -> None:
    path = reference_file(name).rename(tmp_path / "without-ending")
    with open_weights(path) as opened:
        assert opened.format == expected
        assert opened.translation.unknown == ()


def test_open_weights_of_shards_joins_them(
    small_arrays: Arrays, write_small: WriteSafetensors
) -> None:
    names = list(small_arrays)
    halves = {"m-1.safetensors": names[:90], "m-2.safetensors": names[90:]}
    for file, part in halves.items():
        path = write_small({name: small_arrays[name] for name in part}, f"model/{file}")
    weight_map = {name: file for file, part in halves.items() for name in part}
    index = path.parent / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with open_weights(path.parent) as opened:
        assert set(opened.translation.tensors) == set(small_arrays)


def test_open_weights_with_a_tensor_in_two_shards_is_refused(
    small_arrays: Arrays, write_small: WriteSafetensors
) -> None:
    for file in ("m-1.safetensors", "m-2.safetensors"):
        path = write_small(small_arrays, f"model/{file}")
    index = path.parent / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    with pytest.raises(WeightsError, match="in one file"), open_weights(path.parent):
        pass


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def test_open_weights_of_a_compressed_keras_archive(
    reference_file: Callable[[str], Path], tmp_path: Path
) -> None:
    weights = reference_file("kerashub.weights.h5").read_bytes()
    data = zipped({"config.json": b"{}", "model.weights.h5": weights}, zipfile.ZIP_DEFLATED)
    (tmp_path / "a.keras").write_bytes(data)
    with open_weights(tmp_path / "a.keras") as opened:
        assert opened.format == "kerashub"
        unpacked = next(iter(opened.translation.tensors.values())).read()
        assert np.isfinite(unpacked).all()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "begins with b''", id="empty"),
        pytest.param(b"<!DOCTYPE html>", "begins with", id="html-page"),
        pytest.param(pickle.dumps({"a": 1}, 2), "bare pickle", id="legacy-torch"),
        pytest.param(b"PK\x03\x04nothing", "damaged", id="half-a-zip"),
        pytest.param(zipped({"a.txt": b"x"}), "with 0 of them", id="other-zip"),
        pytest.param(
            zipped({"model.weights.h5": bytes(10**7)}, zipfile.ZIP_DEFLATED), "sane size", id="bomb"
        ),
        pytest.param(zipped({"model.weights.h5": b"x"}), "whole HDF5", id="keras-without-hdf5"),
        pytest.param(b"\x89HDF\r\n\x1a\n", "whole HDF5", id="half-an-hdf5"),
        pytest.param((2).to_bytes(8, "little") + b"{}", "no tensors", id="empty-safetensors"),
    ],
)
def test_open_weights_of_something_else_is_refused(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(WeightsError, match=reason), open_weights(tmp_path / "a"):
        pass


def test_open_weights_of_a_damaged_keras_archive_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"model.weights.h5": bytes(range(256)) * 9}))
    data[100] ^= 0xFF
    (tmp_path / "a.keras").write_bytes(data)
    with (
        pytest.raises(WeightsError, match="damaged or cut off"),
        open_weights(tmp_path / "a.keras"),
    ):
        pass


def test_open_weights_without_permission_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"x")

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError

    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(WeightsError, match="PermissionError"), open_weights(tmp_path / "a"):
        pass
