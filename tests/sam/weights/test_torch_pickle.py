from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.torch_pickle import read_torch_checkpoint
from tests.sam.weights.torch_files import (
    Call,
    Named,
    archive,
    contiguous,
    dumps,
    tensor,
    write,
)

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


def read(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    return {name: t.read() for name, t in read_torch_checkpoint(path).tensors.items()}


def test_read_state_dict_gives_names_shapes_and_values(tmp_path: Path) -> None:
    state = OrderedDict(w=contiguous("0", VALUES), b=tensor("1", 1, (), ()))
    path = write(tmp_path / "a.pth", state, {"0": VALUES.tobytes(), "1": struct.pack("<f", 7)})
    checkpoint = read_torch_checkpoint(path)
    assert checkpoint.format == "torch"
    assert list(checkpoint.tensors) == ["w", "b"]
    assert checkpoint.tensors["w"].shape == (3, 4)
    assert checkpoint.tensors["w"].dtype == "float32"
    np.testing.assert_array_equal(checkpoint.tensors["w"].read(), VALUES)
    assert checkpoint.tensors["b"].read() == 7


@given(data=st.data())
def test_read_strides_and_offset_are_honoured(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    axes = data.draw(st.permutations(range(len(shape))))
    offset = data.draw(st.integers(0, 5))
    size = int(np.prod(shape))
    flat = np.arange(offset + size + 3, dtype=np.float32)
    view = flat[offset : offset + size].reshape(shape).transpose(axes)
    strides = tuple(int(step) // 4 for step in view.strides)
    path = write(
        tmp_path_factory.mktemp("strided") / "a.pth",
        {"w": tensor("0", flat.size, view.shape, strides, offset=offset)},
        {"0": flat.tobytes()},
    )
    np.testing.assert_array_equal(read(path)["w"], view)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "bool"])
def test_read_each_storage_type(dtype: str, tmp_path: Path) -> None:
    values = np.array([0, 1, 5], dtype)
    path = write(
        tmp_path / "a.pth", {"w": contiguous("0", values, dtype=dtype)}, {"0": values.tobytes()}
    )
    result = read(path)["w"]
    assert result.dtype == dtype
    np.testing.assert_array_equal(result, values)


def test_read_bfloat16_is_widened_exactly(tmp_path: Path) -> None:
    # 1.0, -2.5 and the smallest step above 1 as the upper halves of float32.
    bits = np.array([0x3F80, 0xC020, 0x3F81], np.uint16)
    path = write(
        tmp_path / "a.pth", {"w": contiguous("0", bits, dtype="bfloat16")}, {"0": bits.tobytes()}
    )
    np.testing.assert_array_equal(read(path)["w"], np.array([1, -2.5, 1.0078125], np.float32))


def test_read_big_endian_archive(tmp_path: Path) -> None:
    members = {
        "data.pkl": dumps({"w": contiguous("0", VALUES)}),
        "byteorder": b"big",
        "data/0": VALUES.astype(">f4").tobytes(),
    }
    (tmp_path / "a.pth").write_bytes(archive(members))
    np.testing.assert_array_equal(read(tmp_path / "a.pth")["w"], VALUES)


def test_read_two_tensors_of_one_storage(tmp_path: Path) -> None:
    state = {"a": tensor("0", 12, (2,), (1,)), "b": tensor("0", 12, (2,), (1,), offset=10)}
    path = write(tmp_path / "a.pth", state, {"0": VALUES.tobytes()})
    result = read(path)
    np.testing.assert_array_equal(result["a"], [0, 1])
    np.testing.assert_array_equal(result["b"], [10, 11])


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_read_wrapped_state_dict(wrapper: str, prefix: str, tmp_path: Path) -> None:
    state = {f"{prefix}w": contiguous("0", VALUES), f"{prefix}v": contiguous("0", VALUES)}
    root = {"epoch": 3, wrapper: state, "optimizer": {"lr": 0.1, "betas": [0.9, 0.999]}}
    path = write(tmp_path / "a.pth", root, {"0": VALUES.tobytes()})
    assert sorted(read(path)) == ["v", "w"]


def test_read_prefix_of_only_some_names_stays(tmp_path: Path) -> None:
    state = {"module.w": contiguous("0", VALUES), "v": contiguous("0", VALUES)}
    path = write(tmp_path / "a.pth", state, {"0": VALUES.tobytes()})
    assert sorted(read(path)) == ["module.w", "v"]


def test_read_parameter_and_ordered_pairs(tmp_path: Path) -> None:
    parameter = Call(
        Named("torch._utils", "_rebuild_parameter"), contiguous("0", VALUES), True, OrderedDict()
    )
    root = Call(Named("collections", "OrderedDict"), [["w", parameter]])
    path = write(tmp_path / "a.pth", root, {"0": VALUES.tobytes()})
    np.testing.assert_array_equal(read(path)["w"], VALUES)


def test_read_attributes_of_a_state_dict_are_dropped(tmp_path: Path) -> None:
    # torch hangs {"_metadata": ...} on every state dict through BUILD.
    body = dumps({"w": contiguous("0", VALUES)})[:-1] + dumps({"_metadata": {"": {"v": 1}}})[2:-1]
    path = write(tmp_path / "a.pth", body + pickle.BUILD + b".", {"0": VALUES.tobytes()})
    assert list(read(path)) == ["w"]


@pytest.mark.parametrize(
    ("described", "reason"),
    [
        pytest.param(tensor("0", 12, (13,), (1,)), "beyond its storage", id="too-many-values"),
        pytest.param(tensor("0", 12, (3,), (6,)), "beyond its storage", id="stride-leaves-it"),
        pytest.param(
            tensor("0", 12, (2,), (1,), offset=11), "beyond its storage", id="offset-leaves-it"
        ),
        pytest.param(
            tensor("0", 12, (0,), (1,), offset=13), "beyond its storage", id="empty-but-outside"
        ),
        pytest.param(tensor("0", 12, (100,), (0,)), "beyond its storage", id="expanded"),
        pytest.param(tensor("0", 12, (2,), (-1,), offset=5), "negative", id="negative-stride"),
        pytest.param(tensor("0", 12, (2,), (1,), offset=-1), "negative", id="negative-offset"),
        pytest.param(tensor("0", 12, (2.0,), (1,)), "fractional", id="fractional-size"),
        pytest.param(tensor("0", 12, (True,), (1,)), "fractional", id="boolean-size"),
        pytest.param(tensor("0", 12, (2, 2), (1,)), "strides", id="fewer-strides"),
        pytest.param(tensor("0", 12, (1,) * 9, (1,) * 9), "strides", id="too-many-dimensions"),
        pytest.param(tensor("0", 13, (13,), (1,)), "Expected 52 bytes", id="storage-too-short"),
        pytest.param(tensor("9", 12, (3,), (1,)), "'data/9'", id="no-such-storage"),
        pytest.param(tensor("../0", 12, (3,), (1,)), "'data/../0'", id="path-as-key"),
        pytest.param(
            Call(Named("torch._utils", "_rebuild_tensor_v2"), 1, 0, (), ()),
            "without storage",
            id="number-as-storage",
        ),
        pytest.param(
            Call(Named("torch._utils", "_rebuild_parameter"), 1), "parameter", id="odd-parameter"
        ),
        pytest.param(
            Call(Named("torch._utils", "_rebuild_tensor_v2")), "damaged", id="no-arguments"
        ),
        pytest.param(
            Call(Named("torch._utils", "_rebuild_device_tensor")), "_rebuild_device", id="unknown"
        ),
        pytest.param(Call(Named("collections", "OrderedDict"), 5), "pairs", id="number-as-pairs"),
        pytest.param(
            Call(Named("collections", "OrderedDict"), [[(), 1]]), "a key of type", id="odd-key"
        ),
    ],
)
def test_read_impossible_tensor_is_refused(described: Any, reason: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"w": described}, {"0": VALUES.tobytes()})
    with pytest.raises(WeightsError, match=reason):
        read_torch_checkpoint(path)


@pytest.mark.parametrize(
    "identifier",
    [
        pytest.param(b"K\x01", id="number"),
        pytest.param(b"(X\x05\0\0\0otherK\1K\1K\1K\1t", id="other-kind"),
        pytest.param(b"(X\x07\0\0\0storageK\1K\1K\1K\1t", id="number-as-type"),
        pytest.param(b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\1\0\0\x000K\1Nt", id="no-size"),
    ],
)
def test_read_odd_persistent_id_is_refused(identifier: bytes, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", b"\x80\x02" + identifier + b"Q.")
    with pytest.raises(WeightsError, match="damaged pickle"):
        read_torch_checkpoint(path)


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        pytest.param([1, 2], "Received: list", id="list"),
        pytest.param({}, "Received: dict", id="empty"),
        pytest.param({"epoch": 3}, "tensors only.*epoch", id="no-tensors"),
        pytest.param({"model": {"w": 3}}, "tensors only.*w", id="number-as-tensor"),
    ],
)
def test_read_other_content_is_refused(root: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=reason):
        read_torch_checkpoint(write(tmp_path / "a.pth", root))


class Payload:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_read_payload_beside_weights_is_not_executed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    body = dumps({"w": contiguous("0", VALUES)})[:-1]
    payload = pickle.dumps({"v": Payload(f"touch {canary}")}, 2)[2:-1]
    path = write(tmp_path / "a.pth", body + payload + b"0.", {"0": VALUES.tobytes()})
    with pytest.raises(WeightsError, match=r"system.*nothing was executed"):
        read_torch_checkpoint(path)
    assert not canary.exists()


def test_read_needs_no_torch(reference_file: Any) -> None:
    tensors = read_torch_checkpoint(reference_file("official.pth")).tensors
    assert "torch" not in sys.modules
    assert tensors["image_encoder.pos_embed"].shape == (1, 4, 4, 12)


def repacked(path: Path, edit: Any) -> Path:
    """Write a sound archive again after `edit` changed its list of (ZipInfo, bytes)."""
    sound = write(path.with_suffix(".sound"), {"w": contiguous("0", VALUES)}, {"0": bytes(48)})
    with zipfile.ZipFile(sound) as archive_file:
        members = [(info, archive_file.read(info)) for info in archive_file.infolist()]
    with zipfile.ZipFile(path, "w") as target:
        for info, data in edit(members):
            target.writestr(info, data)
    return path


def renamed(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Copy what may be written a second time under the same name."""
    return zipfile.ZipInfo(info.filename)


@pytest.mark.parametrize("name", ["../x", "archive/../../x", "/etc/x", "archive\\x", "C:x", "a\nb"])
def test_read_unsafe_member_name_is_refused(name: str, tmp_path: Path) -> None:
    path = repacked(tmp_path / "a.pth", lambda m: [*m, (zipfile.ZipInfo(name), b"x")])
    with pytest.raises(WeightsError, match="plain names"):
        read_torch_checkpoint(path)


def test_read_compressed_member_is_refused(tmp_path: Path) -> None:
    bomb = zipfile.ZipInfo("archive/data/0")
    bomb.compress_type = zipfile.ZIP_DEFLATED
    path = repacked(tmp_path / "a.pth", lambda m: [*m[:-1], (bomb, bytes(10_000_000))])
    assert path.stat().st_size < 100_000
    with pytest.raises(WeightsError, match="uncompressed"):
        read_torch_checkpoint(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_read_doubled_member_is_refused(tmp_path: Path) -> None:
    path = repacked(tmp_path / "a.pth", lambda m: [*m, (renamed(m[-1][0]), m[-1][1])])
    with pytest.raises(WeightsError, match="each member once"):
        read_torch_checkpoint(path)


def test_read_two_pickles_are_refused(tmp_path: Path) -> None:
    path = repacked(tmp_path / "a.pth", lambda m: [*m, (zipfile.ZipInfo("other/data.pkl"), b"x")])
    with pytest.raises(WeightsError, match="with 2 of them"):
        read_torch_checkpoint(path)


def test_read_member_outside_the_root_is_ignored(tmp_path: Path) -> None:
    path = repacked(tmp_path / "a.pth", lambda m: [*m, (zipfile.ZipInfo("readme"), b"x")])
    assert list(read(path)) == ["w"]


def test_read_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"w": contiguous("0", VALUES)}, {"0": VALUES.tobytes()})
    data = bytearray(path.read_bytes())
    # Grow the first member (the pickle) in the central directory over its neighbour.
    entry = data.index(b"PK\x01\x02")
    size = struct.unpack_from("<I", data, entry + 20)[0] + 40
    struct.pack_into("<II", data, entry + 20, size, size)
    path.write_bytes(data)
    with pytest.raises(WeightsError, match="follow each other"):
        read_torch_checkpoint(path)


def test_read_header_that_disagrees_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"w": contiguous("0", VALUES)}, {"0": VALUES.tobytes()})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"archive/version", b"archive/verSion", 1))
    with pytest.raises(WeightsError, match="agree with its members"):
        read_torch_checkpoint(path)


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.99])
def test_read_cut_off_file_is_refused(keep: float, reference_file: Any) -> None:
    path = reference_file("official.pth")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(WeightsError, match="cut off"):
        read_torch_checkpoint(path)


@given(position=st.integers(0, 10**6), byte=st.integers(0, 255))
def test_read_damaged_file_never_raises_another_error(
    position: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("damaged") / "a.pth"
    write(path, {"w": contiguous("0", VALUES)}, {"0": VALUES.tobytes()})
    data = bytearray(path.read_bytes())
    data[position % len(data)] = byte
    path.write_bytes(data)
    with contextlib.suppress(WeightsError):
        for source in read_torch_checkpoint(path).tensors.values():
            source.read()


def test_read_unknown_byte_order_is_refused(tmp_path: Path) -> None:
    members = {"data.pkl": dumps({"w": contiguous("0", VALUES)}), "byteorder": b"middle"}
    (tmp_path / "a.pth").write_bytes(archive(members | {"data/0": VALUES.tobytes()}))
    with pytest.raises(WeightsError, match="byte order"):
        read_torch_checkpoint(tmp_path / "a.pth")


def test_read_oversized_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(archive({"data.pkl": bytes(65 * 2**20)}))
    with pytest.raises(WeightsError, match="at most 67108864 bytes"):
        read_torch_checkpoint(tmp_path / "a.pth")


def test_read_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amg_pipeline.sam.weights import torch_zip

    monkeypatch.setattr(torch_zip, "_MAX_MEMBERS", 2)
    path = write(tmp_path / "a.pth", {"w": contiguous("0", VALUES)}, {"0": VALUES.tobytes()})
    with pytest.raises(WeightsError, match="at most 2 members"):
        read_torch_checkpoint(path)


def test_read_zip_without_pickle_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.txt", "x")
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    with pytest.raises(WeightsError, match="with 0 of them"):
        read_torch_checkpoint(tmp_path / "a.pth")
