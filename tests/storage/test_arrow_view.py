from __future__ import annotations

from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from amg_pipeline.errors import TransientStorageError
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.remote_files import RemoteFiles
from tests.storage.doubles import EAGER


@pytest.fixture
def store() -> ObjectStore:
    store = ObjectStore.open(f"memory://{uuid4().hex}/out", retry=EAGER)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": range(1000), "b": ["text"] * 1000}), sink, row_group_size=100)
    store.put("masks/part.parquet", sink.getvalue().to_pybytes())
    return store


def read_column(store: ObjectStore) -> list[int]:
    filesystem, root = store.arrow()
    paths = [f"{root.rstrip('/')}/masks/part.parquet"]
    dataset = pyarrow.dataset.dataset(paths, filesystem=filesystem, format="parquet")
    return dataset.to_table(columns=["a"])["a"].to_pylist()


def test_a_dataset_reads_parts_of_objects(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges: list[int] = []
    read_range = RemoteFiles.read_range

    def note(self: RemoteFiles, key: str, start: int, stop: int) -> bytes:
        ranges.append(stop - start)
        return read_range(self, key, start, stop)

    monkeypatch.setattr(RemoteFiles, "read_range", note)
    assert read_column(store) == list(range(1000))
    assert ranges


def test_faults_are_retried(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [2]
    read_range = RemoteFiles.read_range

    def fail(self: RemoteFiles, key: str, start: int, stop: int) -> bytes:
        left[0] -= 1
        if left[0] >= 0:
            raise ConnectionResetError
        return read_range(self, key, start, stop)

    monkeypatch.setattr(RemoteFiles, "read_range", fail)
    assert read_column(store) == list(range(1000))
    left[0] = 1000
    with pytest.raises(TransientStorageError):
        read_column(store)


def test_local_folders_are_pyarrows_own(tmp_path: pytest.TempPathFactory) -> None:
    filesystem, root = ObjectStore.open(str(tmp_path)).arrow()
    assert isinstance(filesystem, pyarrow.fs.LocalFileSystem)
    assert root == str(tmp_path)
