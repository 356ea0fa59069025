from __future__ import annotations

import errno
import os
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest

from amg_pipeline.errors import (
    CommitConflictError,
    ConfigError,
    StorageError,
    TransientStorageError,
)
from amg_pipeline.records import ImageResult, Shard
from amg_pipeline.storage import plan_parts
from amg_pipeline.storage.listing import IMAGES_SCHEMA
from amg_pipeline.storage.local_files import LocalFiles
from amg_pipeline.storage.mask_table import encode_table, load_masks
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan
from amg_pipeline.storage.verification import Problem
from tests.storage.doubles import EAGER, METADATA


@pytest.fixture(params=["local", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid4().hex}"


def images(count: int) -> pa.Table:
    rows = [
        {
            "image_id": f"{number:03d}.jpg",
            "uri": f"/in/{number:03d}.jpg",
            "size_bytes": number or None,
            "etag": None if number % 2 else f"tag{number}",
        }
        for number in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=IMAGES_SCHEMA)


def stored_plan(directory: RunDirectory, *, count: int = 10, shard_size: int = 4) -> StoredPlan:
    parts = directory.write_plan_parts(images(count), shard_size=shard_size)
    plan = StoredPlan(
        fingerprint=METADATA.fingerprint,
        fingerprint_fields={"amg.pred_iou_thresh": 0.5, "images.include": ["ä"]},
        config={"model": {"intra_op_threads": 2}},
        weights_sha256="ab" * 32,
        package_version="0.1.0",
        schema_version=1,
        num_images=count,
        num_bytes=45,
        num_unsized=1,
        num_shards=-(-count // shard_size),
        parts=parts,
    )
    directory.create_plan(plan)
    return plan


def encode_shard(shard: Shard) -> bytes:
    results = [ImageResult(ref, "ok", 4, 3) for ref in shard.images]
    return encode_table(results, METADATA)


# The plan


def test_plan_reads_back(uri: str) -> None:
    directory = RunDirectory.open(uri, retry=EAGER)
    assert directory.read_plan() is None
    plan = stored_plan(directory)
    assert directory.read_plan() == plan
    assert directory.require_plan() == plan
    assert plan.to_json() == StoredPlan.from_json(plan.to_json()).to_json()


def test_plan_is_created_once(uri: str) -> None:
    directory = RunDirectory.open(uri)
    plan = stored_plan(directory)
    with pytest.raises(CommitConflictError):
        directory.create_plan(plan)


def test_no_plan_no_run(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"_amg/plan\.json"):
        RunDirectory.open(uri).require_plan()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"parts": []}', b'{"parts": [{"x": 1}]}'])
def test_damaged_plan_says_so(tmp_path: Path, data: bytes) -> None:
    ObjectStore.open(str(tmp_path)).put("_amg/plan.json", data)
    with pytest.raises(StorageError, match="plan of this version"):
        RunDirectory.open(str(tmp_path)).read_plan()


@pytest.mark.parametrize("part_rows", [1, 4, 9, 100])
def test_shards_are_the_plans_rows(
    uri: str, monkeypatch: pytest.MonkeyPatch, part_rows: int
) -> None:
    monkeypatch.setattr(plan_parts, "_PART_ROWS", part_rows)
    directory = RunDirectory.open(uri)
    plan = stored_plan(directory)
    shards = list(directory.shards(plan))
    assert [shard.shard_id for shard in shards] == [0, 1, 2]
    assert [len(shard.images) for shard in shards] == [4, 4, 2]
    refs = [ref for shard in shards for ref in shard.images]
    assert [ref.image_id for ref in refs] == [f"{number:03d}.jpg" for number in range(10)]
    assert [ref.uri for ref in refs] == [f"/in/{number:03d}.jpg" for number in range(10)]
    assert (refs[0].size_bytes, refs[0].etag) == (None, "tag0")
    assert (refs[7].size_bytes, refs[7].etag) == (7, None)
    assert [shard.shard_id for shard in directory.shards(plan, skip={0, 2})] == [1]
    assert list(directory.shards(plan, skip=range(3))) == []


def test_parts_without_work_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_parts, "_PART_ROWS", 4)
    directory = RunDirectory.open(str(tmp_path))
    plan = stored_plan(directory)
    (tmp_path / plan.parts[0].key).unlink()
    assert [shard.shard_id for shard in directory.shards(plan, skip={0})] == [1, 2]
    with pytest.raises(StorageError, match=r"plan/part-00000"):
        list(directory.shards(plan))


def test_damaged_part(tmp_path: Path) -> None:
    directory = RunDirectory.open(str(tmp_path))
    plan = stored_plan(directory)
    (tmp_path / plan.parts[0].key).write_bytes(b"PAR1")
    with pytest.raises(StorageError, match="ArrowInvalid"):
        list(directory.shards(plan))


def test_racing_planners_do_not_mix_their_rows(uri: str) -> None:
    """The slower one listed an image more; the faster one's plan stays whole."""
    fast, slow = RunDirectory.open(uri), RunDirectory.open(uri)
    plan = stored_plan(fast)
    slow.write_plan_parts(images(11), shard_size=4)
    assert sum(len(shard.images) for shard in fast.shards(plan)) == 10


def test_store_that_fails_for_now_is_no_damage(tmp_path: Path) -> None:
    class Busy(LocalFiles):
        def read(self, key: str) -> bytes:
            raise OSError(errno.EBUSY, "Device or resource busy")

    directory = RunDirectory.open(str(tmp_path))
    plan = stored_plan(directory)
    assert directory.has_all_rows(plan)
    busy = RunDirectory(ObjectStore(Busy(str(tmp_path)), retry=EAGER))
    with pytest.raises(TransientStorageError):
        busy.has_all_rows(plan)
    (tmp_path / plan.parts[0].key).unlink()
    assert not directory.has_all_rows(plan)


# Foreign and old


def test_empty_outputs_and_killed_planners_are_no_obstacle(uri: str) -> None:
    directory = RunDirectory.open(uri)
    directory.refuse_foreign()
    directory.write_plan_parts(images(3), shard_size=2)
    ObjectStore.open(uri).put("_old/01234567/masks/x", b"")
    directory.refuse_foreign()


@pytest.mark.parametrize(
    "key", ["holiday.jpg", "masks/part-000000-01234567.parquet", "_amg/notes", "_SUCCESS"]
)
def test_foreign_outputs_are_refused(uri: str, key: str) -> None:
    ObjectStore.open(uri).put(key, b"precious")
    with pytest.raises(ConfigError, match="which has"):
        RunDirectory.open(uri).refuse_foreign()
    assert ObjectStore.open(uri).read(key) == b"precious"


def test_a_file_is_no_output(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="must be a folder"):
        RunDirectory.open(str(tmp_path / "file")).refuse_foreign()


def test_move_to_old_takes_everything(uri: str) -> None:
    directory, store = RunDirectory.open(uri), ObjectStore.open(uri)
    for round_, folder in enumerate(["_old/01234567/", "_old/01234567-2/"]):
        plan = stored_plan(directory)
        for shard in directory.shards(plan):
            directory.commit_shard(plan, shard.shard_id, encode_shard(shard))
        directory.write_summary({"round": round_}, is_complete=True)
        before = {i.key: store.read(i.key) for i in store.list() if not i.key.startswith("_old/")}
        assert directory.move_to_old(plan) == folder
        assert [i.key for i in store.list() if not i.key.startswith("_old/")] == []
        assert {i.key.removeprefix(folder): store.read(i.key) for i in store.list(folder)} == before
        directory.refuse_foreign()


def test_move_to_old_leaves_what_is_not_the_runs(uri: str) -> None:
    directory, store = RunDirectory.open(uri), ObjectStore.open(uri)
    plan = stored_plan(directory)
    store.put("report/index.html", b"a page")
    store.put("Notes.txt", b"mine")
    directory.move_to_old(plan)
    kept = [info.key for info in store.list() if not info.key.startswith("_old/")]
    assert kept == ["Notes.txt", "report/index.html"]
    # Killed here, the same command must be able to go on.
    directory.refuse_foreign()
    store.put("masks/part-000000-ffffffff.parquet", b"not of this plan")
    with pytest.raises(ConfigError, match="masks/part-000000-ffffffff"):
        directory.refuse_foreign()


@pytest.mark.parametrize("moved", range(8))
def test_half_moved_generation_is_taken_up_again(tmp_path: Path, moved: int) -> None:
    class Stopping(LocalFiles):
        left = moved

        def move(self, source: str, destination: str) -> None:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            super().move(source, destination)

    directory = RunDirectory.open(str(tmp_path))
    plan = stored_plan(directory)
    for shard in directory.shards(plan):
        directory.commit_shard(plan, shard.shard_id, encode_shard(shard))
    directory.write_summary({}, is_complete=True)
    keys = {info.key for info in ObjectStore.open(str(tmp_path)).list()}
    assert len(keys) == 7
    if moved < len(keys):
        with pytest.raises(KeyboardInterrupt):
            RunDirectory(ObjectStore(Stopping(str(tmp_path)))).move_to_old(plan)
        # Until the end the plan is there, so that the rest is known to be ours.
        assert directory.read_plan() == plan
        assert not (tmp_path / "_SUCCESS").exists() or moved == 0
    directory.move_to_old(plan)
    found = {info.key for info in ObjectStore.open(str(tmp_path)).list("_old/01234567/")}
    assert found == {f"_old/01234567/{key}" for key in keys}


# Shards


def test_commits_are_what_is_listed(uri: str) -> None:
    directory, store = RunDirectory.open(uri), ObjectStore.open(uri)
    plan = stored_plan(directory)
    assert directory.committed(plan) == frozenset()
    shard = list(directory.shards(plan))[1]
    data = encode_shard(shard)
    assert directory.commit_shard(plan, 1, data) == "masks/part-000001-01234567.parquet"
    assert directory.commit_shard(plan, 1, data)
    store.put("masks/part-000002-ffffffff.parquet", b"of another generation")
    store.put("masks/part-000003-01234567.parquet", b"beyond the plan")
    assert directory.committed(plan) == {1}
    assert directory.read_shard(plan, 1) == data
    with pytest.raises(FileNotFoundError):
        directory.read_shard(plan, 0)
    # Nothing but the object itself is needed.
    store.move("masks/part-000001-01234567.parquet", "elsewhere")
    assert directory.committed(plan) == frozenset()


def test_verify(uri: str) -> None:
    directory, store = RunDirectory.open(uri), ObjectStore.open(uri)
    plan = stored_plan(directory)
    assert list(directory.verify(plan)) == []
    shards = list(directory.shards(plan))
    directory.commit_shard(plan, 0, encode_shard(shards[0]))
    directory.commit_shard(plan, 2, encode_shard(shards[2]))
    assert list(directory.verify(plan)) == []
    directory.commit_shard(plan, 0, encode_shard(shards[1]))
    directory.commit_shard(plan, 2, b"PAR1")
    store.put("masks/notes.txt", b"")
    problems = list(directory.verify(plan))
    assert problems[0].key == "masks/notes.txt"
    assert {problem.key for problem in problems[1:5]} == {"masks/part-000000-01234567.parquet"}
    assert isinstance(problems[-1], Problem)
    assert "complete Parquet" in problems[-1].message


def test_load_masks_of_a_run(uri: str) -> None:
    directory = RunDirectory.open(uri)
    plan = stored_plan(directory)
    for shard in directory.shards(plan):
        directory.commit_shard(plan, shard.shard_id, encode_shard(shard))
    assert load_masks(uri).count_rows() == 10


# Records


def test_attempts_are_numbered(uri: str) -> None:
    directory = RunDirectory.open(uri)
    assert directory.read_attempts(3) == []
    records = [{"reason": f"r{number}"} for number in range(11)]
    assert [directory.write_attempt(3, record) for record in records] == list(range(1, 12))
    assert directory.read_attempts(3) == records
    assert directory.read_attempts(4) == []


def test_two_drivers_records_of_one_number_are_both_kept(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = RunDirectory.open(uri)
    directory.write_attempt(3, {"reason": "first"})
    listing = list(directory._attempts())
    # The second driver lists before the first one writes.
    monkeypatch.setattr(RunDirectory, "_attempts", lambda self, shard="": iter(listing))
    numbers = [directory.write_attempt(3, {"reason": reason}) for reason in "ab"]
    monkeypatch.undo()
    assert numbers == [2, 2]
    reasons = [record["reason"] for record in directory.read_all_attempts(skip=())[3]]
    assert reasons[0] == "first"
    assert sorted(reasons[1:]) == ["a", "b"]


def test_attempts_skip_what_is_none(tmp_path: Path) -> None:
    directory = RunDirectory.open(str(tmp_path))
    assert directory.write_attempt(3, {"reason": "a"}) == 1
    folder = tmp_path / "_amg/attempts/000003"
    (record,) = folder.iterdir()
    for name in (".DS_Store", "01.json", "2.json~", "x.json"):
        (folder / name).write_bytes(b"\0")
    assert directory.read_attempts(3) == [{"reason": "a"}]
    # Only the names tell the number: a damaged record is no obstacle to the next one.
    record.write_bytes(b"{")
    assert directory.write_attempt(3, {"reason": "b"}) == 2


def test_stats(uri: str) -> None:
    directory = RunDirectory.open(uri)
    directory.write_stats(0, {"masks": 1})
    directory.write_stats(1, {"masks": 2})
    assert [record["masks"] for record in directory.read_stats(range(9))] == [1, 2]


def test_stats_are_best_effort(tmp_path: Path) -> None:
    class Full(LocalFiles):
        def put(self, key: str, data: bytes) -> None:
            raise OSError(28, "No space left on device")

    directory = RunDirectory(ObjectStore(Full(str(tmp_path))))
    directory.write_stats(0, {})
    with pytest.raises(StorageError):
        directory.write_summary({}, is_complete=False)


def test_success_only_when_complete(uri: str) -> None:
    directory, store = RunDirectory.open(uri), ObjectStore.open(uri)
    directory.write_summary({"images": 1}, is_complete=False)
    assert store.exists("_amg/summary.json")
    assert not store.exists("_SUCCESS")
    directory.write_summary({"images": 2}, is_complete=True)
    assert store.exists("_SUCCESS")
    assert b'"images": 2' in store.read("_amg/summary.json")


def test_end_of_a_run_tidies_up(tmp_path: Path) -> None:
    directory = RunDirectory.open(str(tmp_path))
    plan = stored_plan(directory)
    directory.commit_shard(plan, 0, b"1")
    abandoned = tmp_path / "masks" / ".amg-0011223344556677.tmp"
    abandoned.write_bytes(b"half")
    os.utime(abandoned, (0, 0))
    directory.write_summary({}, is_complete=True)
    assert [path.name for path in (tmp_path / "masks").iterdir()] == [
        "part-000000-01234567.parquet"
    ]
