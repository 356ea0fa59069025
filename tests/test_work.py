"""What is left of a run, and rows that are done again: only those, and to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline import planning
from amg_pipeline.errors import StorageError, TransientStorageError
from amg_pipeline.local_runner import run_locally
from amg_pipeline.outcome import RunOutcome
from amg_pipeline.planning import Plan
from amg_pipeline.records import DecodedImage, ImageRef, ImageResult
from amg_pipeline.shard_runner import runner
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.mask_table import decode_table, encode_table
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.work import Work, find_work
from tests.photo_runs import (
    make_threshold_generator,
    plan_photos,
    stored_masks,
    write_photo,
    write_photos,
)
from tests.storage.doubles import Killed, MortalFiles

Fail = Callable[..., list[str]]
FLAKY = ("001.png", "004.png", "005.png")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven photos, one of them damaged: three shards of two and one of one."""
    folder = write_photos(tmp_path / "in", 7)
    (folder / "002.png").write_bytes(b"damaged")
    return folder


@pytest.fixture
def undisturbed(photos: Path, tmp_path: Path) -> dict[str, bytes]:
    run(plan_photos(photos, tmp_path / "undisturbed"))
    return stored_masks(tmp_path / "undisturbed")


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """Let the store fail for some images; gives a list of the images that are loaded."""

    def fail(names: Iterable[str] = ()) -> list[str]:
        loaded: list[str] = []

        def load(ref: ImageRef, **options: Any) -> DecodedImage:
            loaded.append(ref.image_id)
            if ref.image_id in names:
                raise TransientStorageError("the store did not answer")
            return load_image(ref, **options)

        monkeypatch.setattr(runner, "load_image", load)
        return loaded

    return fail


def run(plan: Plan, work: Work | None = None, **options: Any) -> RunOutcome:
    return run_locally(plan, work=work, make_generator=make_threshold_generator, **options)


def retry(plan: Plan, *statuses: str, **options: Any) -> RunOutcome:
    return run(plan, find_work(plan, retry_statuses=statuses), **options)


@pytest.fixture
def half_done(
    photos: Path, tmp_path: Path, undisturbed: dict[str, bytes], unreachable: Fail
) -> Plan:
    """A run whose images of `FLAKY` could not be fetched."""
    plan = plan_photos(photos, tmp_path / "out")
    unreachable(FLAKY)
    assert not run(plan).is_settled
    return plan


# What is left


def test_before_the_first_shard_all_is_left(photos: Path, tmp_path: Path) -> None:
    work = find_work(plan_photos(photos, tmp_path / "out"), retry_statuses=["timeout"])
    assert (work.num_shards, work.num_images_done, work.num_rows_again) == (4, 0, 0)
    assert [shard.redo for shard in work.shards()] == [None] * 4


def test_committed_shards_are_done(half_done: Plan) -> None:
    work = find_work(half_done)
    assert (work.num_shards, work.num_images_done) == (0, 7)
    assert list(work.shards()) == []


def test_rows_of_a_status_are_left(half_done: Plan) -> None:
    work = find_work(half_done, retry_statuses=["fetch_error", "timeout"])
    assert work.redo == {0: {1}, 2: {0, 1}}
    assert work.done == {1, 3}
    assert (work.num_shards, work.num_images_done, work.num_rows_again) == (2, 3, 3)
    assert [(shard.shard_id, shard.redo) for shard in work.shards()] == [(0, {1}), (2, {0, 1})]


def test_plan_that_was_not_written_has_no_shards(half_done: Plan) -> None:
    draft = planning.replace(half_done, stored=planning.replace(half_done.stored, parts=()))
    assert find_work(draft, retry_statuses=["fetch_error"]).num_shards == 4


def test_damaged_shard_is_named(half_done: Plan) -> None:
    (path,) = Path(half_done.run_directory.uri).glob("masks/part-000002-*")
    path.write_bytes(b"PAR1")
    with pytest.raises(StorageError, match=path.name):
        find_work(half_done, retry_statuses=["fetch_error"])


# Doing rows again


def test_only_the_rows_are_done_and_the_bytes_are_the_undisturbed_ones(
    half_done: Plan, unreachable: Fail, undisturbed: dict[str, bytes]
) -> None:
    out = half_done.run_directory.uri
    assert stored_masks(out) != undisturbed
    loaded = unreachable()
    seen: list[ImageResult] = []
    outcome = retry(half_done, "fetch_error", on_image=seen.append)
    assert sorted(loaded) == list(FLAKY)
    assert stored_masks(out) == undisturbed
    assert outcome.is_settled
    assert outcome.new_images == 3
    assert [result.ref.image_id for result in seen] == ["000.png", "001.png", "004.png", "005.png"]
    summary = json.loads((Path(out) / "_amg" / "summary.json").read_bytes())
    assert summary["images"] == {"ok": 6, "decode_error": 1}
    assert summary["last_run"]["images"] == 3


def test_rows_that_fail_again_stay(half_done: Plan, unreachable: Fail) -> None:
    before = stored_masks(half_done.run_directory.uri)
    unreachable(FLAKY)
    assert not retry(half_done, "fetch_error").is_settled
    assert stored_masks(half_done.run_directory.uri) == before


def test_some_rows_heal_and_others_later(
    half_done: Plan, unreachable: Fail, undisturbed: dict[str, bytes]
) -> None:
    unreachable(["004.png"])
    assert retry(half_done, "fetch_error").counts.unsettled == 1
    loaded = unreachable()
    assert retry(half_done, "fetch_error").is_settled
    assert loaded == ["004.png"]
    assert stored_masks(half_done.run_directory.uri) == undisturbed


def test_other_statuses_are_kept(half_done: Plan, unreachable: Fail) -> None:
    loaded = unreachable()
    before = stored_masks(half_done.run_directory.uri)
    retry(half_done, "timeout", "crash")
    assert loaded == []
    assert stored_masks(half_done.run_directory.uri) == before
    retry(half_done, "decode_error")
    assert loaded == ["002.png"]
    assert stored_masks(half_done.run_directory.uri) == before


def test_image_that_came_later(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out")
    data = (photos / "003.png").read_bytes()
    (photos / "003.png").unlink()
    assert run(plan).counts.images["fetch_error"] == 1
    (photos / "003.png").write_bytes(data)
    assert retry(plan, "fetch_error").counts.images == {"ok": 6, "decode_error": 1}


def test_unfinished_run_is_finished_too(
    half_done: Plan, unreachable: Fail, undisturbed: dict[str, bytes]
) -> None:
    (path,) = Path(half_done.run_directory.uri).glob("masks/part-000003-*")
    path.unlink()
    loaded = unreachable()
    assert retry(half_done, "fetch_error").is_settled
    assert sorted(loaded) == [*FLAKY, "006.png"]
    assert stored_masks(half_done.run_directory.uri) == undisturbed


def test_shard_that_was_removed_meanwhile_is_done_whole(
    half_done: Plan, unreachable: Fail, undisturbed: dict[str, bytes]
) -> None:
    work = find_work(half_done, retry_statuses=["fetch_error"])
    (path,) = Path(half_done.run_directory.uri).glob("masks/part-000002-*")
    path.unlink()
    unreachable()
    run(half_done, work)
    assert stored_masks(half_done.run_directory.uri) == undisturbed


def test_shard_with_other_images_is_refused(half_done: Plan, unreachable: Fail) -> None:
    directory = half_done.run_directory
    rows = decode_table(directory.read_shard(half_done.stored, 2))
    data = encode_table(rows[::-1], half_done.table_metadata)
    directory.commit_shard(half_done.stored, 2, data)
    unreachable()
    with pytest.raises(StorageError, match="Shard 2 must hold the images that the plan says"):
        retry(half_done, "fetch_error")


@pytest.mark.parametrize("kill_at", range(13))
def test_kill_loses_no_row(
    half_done: Plan,
    unreachable: Fail,
    undisturbed: dict[str, bytes],
    kill_at: int,
) -> None:
    out = half_done.run_directory.uri
    unreachable()
    mortal = RunDirectory(ObjectStore(MortalFiles(out, kill_at=kill_at)))
    plan = planning.replace(half_done, run_directory=mortal)
    try:
        retry(plan, "fetch_error")
    except Killed:
        assert kill_at < 12
    assert find_work(half_done).num_images_done == 7
    retry(half_done, "fetch_error")
    assert stored_masks(out) == undisturbed


def test_extended_runs(photos: Path, tmp_path: Path, unreachable: Fail) -> None:
    run(plan_photos(photos, tmp_path / "out"))
    write_photo(photos / "000b.png")
    plan = planning.make_plan(
        plan_photos(photos, tmp_path / "out").config,
        package_version="0.1.0",
        extend=True,
        weights_digest=lambda variant, weights: "ab" * 32,
    )
    unreachable(["000b.png"])
    assert not run(plan).is_settled
    loaded = unreachable()
    assert find_work(plan, retry_statuses=["fetch_error"]).num_images_done == 7
    assert retry(plan, "fetch_error").is_settled
    assert loaded == ["000b.png"]


def test_driver_of_an_earlier_edition_declares_no_success(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out")
    write_photo(photos / "000b.png")
    planning.make_plan(
        plan.config,
        package_version="0.1.0",
        extend=True,
        weights_digest=lambda variant, weights: "ab" * 32,
    )
    assert run(plan).is_complete
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert run(plan_photos(photos, tmp_path / "out")).is_settled
    assert (tmp_path / "out" / "_SUCCESS").exists()
