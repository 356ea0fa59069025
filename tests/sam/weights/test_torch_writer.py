from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path

import numpy as np

from amg_pipeline.sam.weights.torch_pickle import read_torch_checkpoint
from amg_pipeline.sam.weights.torch_writer import write_torch_checkpoint
from tests.sam.weights.conftest import Arrays, source_tensors

ARRAYS: Arrays = {
    "b.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.bias": np.array([1.5], np.float32),
    "scalar": np.array(2.5, np.float32),
}


def written() -> bytes:
    buffer = io.BytesIO()
    write_torch_checkpoint(buffer, source_tensors(ARRAYS))
    return buffer.getvalue()


def test_write_reads_back_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(written())
    tensors = read_torch_checkpoint(tmp_path / "a.pth").tensors
    assert list(tensors) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(tensors[name].read(), array)


def test_write_names_only_what_torch_calls_weights() -> None:
    with zipfile.ZipFile(io.BytesIO(written())) as archive:
        pickle = archive.read("archive/data.pkl")
    names = {argument for op, argument, _ in pickletools.genops(pickle) if op.name == "GLOBAL"}
    # torch.load(weights_only=True) allows exactly these.
    assert names == {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch FloatStorage",
    }


def test_write_aligns_every_storage_for_mapping() -> None:
    data = written()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for info in archive.infolist():
            assert info.compress_type == zipfile.ZIP_STORED
            content = archive.read(info)
            assert data.index(content, info.header_offset + 30) % 64 == 0


def test_write_equal_weights_give_equal_bytes() -> None:
    assert written() == written()
