"""Objects that are written piece by piece, on real servers."""

from __future__ import annotations

from typing import Any

import pytest

from amg_pipeline.errors import StorageError
from amg_pipeline.export.formats import export_run
from amg_pipeline.export.settings import ExportSettings
from amg_pipeline.selection import Selection
from amg_pipeline.storage import s3_files
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.s3_files import S3Files
from tests.export.stored_runs import write_run
from tests.s3.conftest import UseServer
from tests.s3.s3_server import S3Server
from tests.storage.doubles import EAGER

pytestmark = pytest.mark.s3

#: The smallest that S3 takes for a part that is not the last.
_PART_BYTES = 5 * 2**20


@pytest.fixture(params=["ceph", "rclone"])
def store(
    request: pytest.FixtureRequest, use_server: UseServer, monkeypatch: pytest.MonkeyPatch
) -> ObjectStore:
    server: S3Server = request.getfixturevalue(request.param)
    use_server(server)
    monkeypatch.setattr(s3_files, "_PART_BYTES", _PART_BYTES)
    return ObjectStore.open(f"s3://{server.new_bucket()}/out", retry=EAGER)


def write(store: ObjectStore, size: int) -> bytes:
    data = bytes(range(256)) * (size // 256)
    with store.stream("a b/x.json") as file:
        for start in range(0, len(data), 2**20):
            file.write(data[start : start + 2**20])
        assert not store.exists("a b/x.json")
    return data


@pytest.mark.parametrize("size", [0, 2**20, _PART_BYTES, 2 * _PART_BYTES + 2**20])
def test_stream_of_any_length_comes_back_whole(store: ObjectStore, size: int) -> None:
    data = write(store, size)

    assert store.read("a b/x.json") == data


def test_part_that_fails_for_a_while_is_sent_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    call = S3Files._call

    def fail_first(self: S3Files, operation: str, **arguments: Any) -> dict[str, Any]:
        if operation == "upload_part":
            calls.append(arguments["PartNumber"])
            if calls.count(2) == 1 and calls[-1] == 2:
                raise ConnectionResetError
        return call(self, operation, **arguments)

    monkeypatch.setattr(S3Files, "_call", fail_first)
    data = write(store, 2 * _PART_BYTES + 2**20)

    assert calls == [1, 2, 2, 3]
    assert store.read("a b/x.json") == data


def test_upload_that_fails_leaves_neither_object_nor_parts(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = S3Files._call

    def fail(self: S3Files, operation: str, **arguments: Any) -> dict[str, Any]:
        if operation == "upload_part" and arguments["PartNumber"] == 2:
            raise PermissionError("denied")
        return call(self, operation, **arguments)

    monkeypatch.setattr(S3Files, "_call", fail)

    with pytest.raises(StorageError):
        write(store, 2 * _PART_BYTES)
    assert list(store.list()) == []
    left = call(store._files, "list_multipart_uploads")
    assert not left.get("Uploads")


def test_run_is_exported_from_bucket_to_bucket(store: ObjectStore, tmp_path: Any) -> None:
    run = write_run(tmp_path)
    local = ObjectStore.open(str(run))
    for info in local.list():
        store.put(f"run/{info.key}", local.read(info.key))
    selection, settings = Selection(min_iou=0.8), ExportSettings()

    here = export_run("sa1b", str(run), str(tmp_path / "x"), selection=selection, settings=settings)
    there = export_run(
        "sa1b", f"{store.uri}/run", f"{store.uri}/x", selection=selection, settings=settings
    )

    assert here == there
    for info in ObjectStore.open(str(tmp_path / "x")).list():
        assert store.read(f"x/{info.key}") == (tmp_path / "x" / info.key).read_bytes()
