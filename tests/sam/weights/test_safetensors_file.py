from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.safetensors_file import read_safetensors, write_safetensors
from tests.sam.weights.conftest import source_tensors


def save(path: Path, arrays: Any, *, dtype: str = "float32", metadata: Any = None) -> Path:
    with path.open("wb") as file:
        write_safetensors(file, source_tensors(arrays), dtype=dtype, metadata=metadata or {})
    return path


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@given(
    arrays=st.dictionaries(
        st.text(min_size=1),
        hnp.arrays(
            np.float32,
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
            elements=st.floats(-(2.0**100), 2.0**100, width=32),
        ),
        max_size=5,
    ).filter(lambda arrays: "__metadata__" not in arrays)
)
def test_write_and_read_round_trip(arrays: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = save(tmp_path_factory.mktemp("st") / "a.safetensors", arrays, metadata={"k": "v"})
    checkpoint = read_safetensors(path)
    assert checkpoint.metadata == {"k": "v"}
    assert set(checkpoint.tensors) == set(arrays)
    for name, array in arrays.items():
        assert checkpoint.tensors[name].shape == array.shape
        np.testing.assert_array_equal(checkpoint.tensors[name].read_float32(), array)


def test_write_float16_halves_the_data_and_rounds_to_nearest(tmp_path: Path) -> None:
    array = np.array([1, 1 + 2**-12, -65504], np.float32)
    tensor = read_safetensors(save(tmp_path / "a", {"w": array}, dtype="float16")).tensors["w"]
    assert tensor.dtype == "float16"
    np.testing.assert_array_equal(tensor.read_float32(), [1, 1, -65504])


def test_write_value_beyond_float16_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"fit float16.*'w'"):
        save(tmp_path / "a", {"w": np.array([65520], np.float32)}, dtype="float16")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_write_value_not_finite_is_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"finite.*'w'"):
        save(tmp_path / "a", {"w": np.array([value], np.float32)})


def test_write_header_is_aligned_and_sorted() -> None:
    file = io.BytesIO()
    arrays = {"b": np.ones(3, np.float32), "a": np.zeros((2, 1), np.float32)}
    write_safetensors(file, source_tensors(arrays), dtype="float32", metadata={})
    data = file.getvalue()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    assert header == {
        "a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "b": {"dtype": "F32", "shape": [3], "data_offsets": [8, 20]},
    }
    assert data[8 + length :] == bytes(8) + np.ones(3, "<f4").tobytes()


def test_read_bfloat16_is_widened(tmp_path: Path) -> None:
    header = {"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    data = np.array([0x3F80, 0xC020], "<u2").tobytes()
    tensor = read_safetensors(raw(tmp_path / "a", header, data)).tensors["w"]
    assert tensor.dtype == "bfloat16"
    np.testing.assert_array_equal(tensor.read_float32(), np.array([1, -2.5], np.float32))


def test_read_integers_are_no_weights(tmp_path: Path) -> None:
    header = {"n": {"dtype": "I64", "shape": [], "data_offsets": [0, 8]}}
    tensor = read_safetensors(raw(tmp_path / "a", header, (5).to_bytes(8, "little"))).tensors["n"]
    assert tensor.read() == 5
    with pytest.raises(WeightsError, match=r"float16, bfloat16.*int64 for 'n'"):
        tensor.read_float32()


def entry(**changes: Any) -> dict[str, Any]:
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        pytest.param(b"{", b"", "no JSON", id="half-a-header"),
        pytest.param(b"\xff", b"", "no JSON", id="not-utf8"),
        pytest.param(b"[" * 100_000, b"", "no JSON", id="deeply-nested"),
        pytest.param([], b"", "no JSON object", id="list"),
        pytest.param(b'{"a":1,"a":2}', b"", "twice", id="name-twice"),
        pytest.param({"__metadata__": {"a": 1}}, b"", "metadata", id="number-in-metadata"),
        pytest.param({"__metadata__": 1}, b"", "metadata", id="metadata-no-object"),
        pytest.param({"w": 1}, b"", "no dtype", id="entry-no-object"),
        pytest.param({"w": {"dtype": "F32"}}, b"", "no dtype, shape", id="no-shape"),
        pytest.param(entry(shape=[-2]), bytes(8), "no dtype, shape", id="negative-side"),
        pytest.param(entry(shape=[True, 2]), bytes(8), "no dtype, shape", id="boolean-side"),
        pytest.param(entry(data_offsets=[0]), bytes(8), "no dtype, shape", id="one-offset"),
        pytest.param(entry(dtype="F8_E4M3"), bytes(8), "F8_E4M3", id="unknown-type"),
        pytest.param(entry(dtype=["F32"]), bytes(8), "no dtype", id="list-as-type"),
        pytest.param(entry(shape=[3]), bytes(8), "bytes 0 to 8", id="shape-and-offsets-differ"),
        pytest.param(entry(), bytes(7), "bytes 0 to 8", id="data-cut-off"),
        pytest.param(entry(), bytes(9), "9 bytes of data", id="data-left-over"),
        pytest.param(entry(data_offsets=[1, 9]), bytes(9), "gap at byte 0", id="gap"),
        pytest.param(
            entry() | {"v": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
            bytes(8),
            "overlap",
            id="overlap",
        ),
    ],
)
def test_read_damaged_file_is_refused(
    header: Any, data: bytes, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=reason):
        read_safetensors(raw(tmp_path / "a", header, data))


@pytest.mark.parametrize("data", [b"", b"1234", (10**15).to_bytes(8, "little") + b"{}"])
def test_read_impossible_header_length_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(WeightsError, match="a header of"):
        read_safetensors(tmp_path / "a")


def test_read_file_without_tensors(tmp_path: Path) -> None:
    assert read_safetensors(raw(tmp_path / "a", {})).tensors == {}


def test_read_what_the_safetensors_package_wrote(reference_file: Any) -> None:
    checkpoint = read_safetensors(reference_file("huggingface.safetensors"))
    assert checkpoint.metadata == {"format": "pt"}
    assert checkpoint.tensors["vision_encoder.pos_embed"].shape == (1, 4, 4, 12)
