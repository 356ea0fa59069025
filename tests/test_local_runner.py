"""Runs in one process: resume, kills at every step, attempts, and what is recorded at the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline import outcome
from amg_pipeline.attempts import MAX_ERRORS, Failure, ShardTask
from amg_pipeline.config import RunConfig
from amg_pipeline.errors import ShardError, StorageError, TransientStorageError, WeightsError
from amg_pipeline.local_runner import run_locally
from amg_pipeline.outcome import RunOutcome
from amg_pipeline.planning import Plan
from amg_pipeline.records import ImageResult
from amg_pipeline.shard_runner import MaskGenerator
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.row_counts import RowCounts
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.telemetry import ROOT_LOGGER
from tests.photo_runs import (
    make_threshold_generator,
    plan_photos,
    stored_masks,
    threshold_masks,
    write_photos,
)

Pixels = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def _propagate_logs() -> Iterator[None]:
    """The command line cuts the package's loggers off from the root, where `caplog` listens."""
    logger = logging.getLogger(ROOT_LOGGER)
    before = logger.propagate
    logger.propagate = True
    yield
    logger.propagate = before


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "in", 7)


def run(plan: Plan, **options: Any) -> RunOutcome:
    return run_locally(plan, **{"make_generator": make_threshold_generator, **options})


def summary_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "_amg" / "summary.json").read_bytes()))


def refuse_to_load(config: RunConfig) -> NoReturn:
    raise AssertionError("the model must not be loaded")


# A run, and the next one


@pytest.mark.parametrize(
    ("shard_size", "num_shards"),
    [
        pytest.param(1, 7, id="one-image-each"),
        pytest.param(3, 3, id="last-one-short"),
        pytest.param(7, 1, id="exactly-one"),
        pytest.param(100, 1, id="larger-than-the-input"),
    ],
)
def test_undisturbed_run(photos: Path, tmp_path: Path, shard_size: int, num_shards: int) -> None:
    seen: list[str] = []
    plan = plan_photos(photos, tmp_path / "out", shard_size=shard_size)

    outcome = run(plan, on_image=lambda result: seen.append(result.ref.image_id))

    rows = load_masks(str(tmp_path / "out")).to_table().to_pylist()
    assert seen == [row["image_id"] for row in rows] == sorted(p.name for p in photos.iterdir())
    assert len(stored_masks(tmp_path / "out")) == plan.num_shards == num_shards
    assert outcome.counts == RowCounts({"ok": 7}, 0, sum(row["num_masks"] for row in rows))
    assert outcome.new_images == 7
    assert outcome.given_up == ()
    assert outcome.is_complete
    assert outcome.is_settled
    assert outcome.elapsed_seconds > 0
    assert list(plan.run_directory.verify(plan.stored)) == []


def test_summary_says_how_it_went(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out", shard_size=3)

    outcome = run(plan)

    summary = summary_of(tmp_path / "out")
    last_run = summary.pop("last_run")
    assert summary == {
        "fingerprint": plan.fingerprint,
        "images": {"ok": 7},
        "masks": outcome.counts.masks,
        "unsettled": 0,
        "shards": 3,
        "shards_missing": [],
        "shards_given_up": [],
        "failures": {},
    }
    assert last_run["images"] == 7
    assert last_run["images_per_second"] > 0
    assert set(last_run["stage_seconds"]) == {
        *("load", "generate", "encode_masks", "encode_table", "commit")
    }
    assert (tmp_path / "out" / "_SUCCESS").read_bytes() == b""


def test_complete_run_loads_no_model_and_changes_no_mask(photos: Path, tmp_path: Path) -> None:
    run(plan_photos(photos, tmp_path / "out"))
    before = stored_masks(tmp_path / "out")

    again = run(plan_photos(photos, tmp_path / "out"), make_generator=refuse_to_load)

    assert stored_masks(tmp_path / "out") == before
    assert again.new_images == 0
    assert again.is_settled
    assert again.counts.images == {"ok": 7}
    assert summary_of(tmp_path / "out")["last_run"]["images"] == 0


def test_resume_does_only_what_is_missing(photos: Path, tmp_path: Path) -> None:
    run(plan_photos(photos, tmp_path / "out"))
    before = stored_masks(tmp_path / "out")
    for key in (sorted(before)[1], sorted(before)[3]):
        (tmp_path / "out" / key).unlink()
    kept = {key: (tmp_path / "out" / key).stat().st_mtime_ns for key in sorted(before)[0::2]}
    seen: list[str] = []

    again = run(
        plan_photos(photos, tmp_path / "out"),
        on_image=lambda result: seen.append(result.ref.image_id),
    )

    assert seen == ["002.png", "003.png", "006.png"]
    assert again.new_images == 3
    assert again.counts.images == {"ok": 7}
    assert stored_masks(tmp_path / "out") == before
    assert {key: (tmp_path / "out" / key).stat().st_mtime_ns for key in kept} == kept


def test_model_is_loaded_once(photos: Path, tmp_path: Path) -> None:
    loaded: list[RunConfig] = []

    def make_generator(config: RunConfig) -> MaskGenerator:
        loaded.append(config)
        return threshold_masks

    plan = plan_photos(photos, tmp_path / "out")
    run(plan, make_generator=make_generator)

    assert loaded == [plan.config]


def test_model_that_cannot_be_loaded_ends_the_run_at_once(photos: Path, tmp_path: Path) -> None:
    def make_generator(config: RunConfig) -> MaskGenerator:
        raise WeightsError("broken")

    with pytest.raises(WeightsError):
        run(plan_photos(photos, tmp_path / "out"), make_generator=make_generator)

    assert not (tmp_path / "out" / "_amg" / "summary.json").exists()


# Attempts


class FlakyGenerator:
    """Fails at one image for the first so many times."""

    def __init__(self, error: BaseException, *, at: Pixels, times: int) -> None:
        self._error = error
        self._at = at
        self._left = times
        self.calls = 0

    def __call__(self, pixels: Pixels) -> Any:
        self.calls += 1
        if self._left and np.array_equal(pixels, self._at):
            self._left -= 1
            raise self._error
        return threshold_masks(pixels)


def flaky(photos: Path, error: BaseException, *, times: int) -> FlakyGenerator:
    """Fail at the second image of the second shard of two."""
    with Image.open(photos / "003.png") as photo:
        return FlakyGenerator(error, at=np.asarray(photo), times=times)


def broken_at_shard_1(photos: Path, error: Exception) -> MaskGenerator:
    """Fail at both images of the second shard, always."""
    generate: MaskGenerator = threshold_masks
    for name in ("002.png", "003.png"):
        with Image.open(photos / name) as photo:
            generate = _failing_at(generate, np.asarray(photo), error)
    return generate


def _failing_at(generate: MaskGenerator, at: Pixels, error: Exception) -> MaskGenerator:
    def fail(pixels: Pixels) -> Any:
        if np.array_equal(pixels, at):
            raise error
        return generate(pixels)

    return fail


def test_fault_that_passes_costs_an_attempt(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generate = flaky(photos, MemoryError("full"), times=2)
    plan = plan_photos(photos, tmp_path / "out")
    seen: list[str] = []

    outcome = run(
        plan,
        make_generator=lambda config: generate,
        on_image=lambda result: seen.append(result.ref.image_id),
    )

    assert outcome.is_settled
    assert outcome.counts.images == {"ok": 7}
    # Each image is reported once, although one shard was tried three times.
    assert seen == [f"{number:03d}.png" for number in range(7)]
    assert generate.calls == 7 + 2 * 2
    attempts = plan.run_directory.read_attempts(1)
    assert [attempt["error_type"] for attempt in attempts] == ["ShardError"] * 2
    assert "'003.png'" in attempts[0]["error_message"]
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["shard 1"] * 2
    assert not any(record.exc_info for record in caplog.records)
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_fault_that_stays_becomes_a_row_of_the_last_attempt(photos: Path, tmp_path: Path) -> None:
    generate = flaky(photos, MemoryError("full"), times=MAX_ERRORS)

    outcome = run(plan_photos(photos, tmp_path / "out"), make_generator=lambda config: generate)

    assert outcome.is_complete
    assert not outcome.is_settled
    assert outcome.counts.images == {"ok": 6, "out_of_memory": 1}
    assert summary_of(tmp_path / "out")["unsettled"] == 1
    # Every shard is committed: the run is over, though not all is well.
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_fault_of_one_image_costs_only_its_row(photos: Path, tmp_path: Path) -> None:
    generate = flaky(photos, ValueError("a bug"), times=100)

    outcome = run(plan_photos(photos, tmp_path / "out"), make_generator=lambda config: generate)

    assert outcome.is_complete
    assert not outcome.is_settled
    assert outcome.counts.images == {"ok": 6, "crash": 1}


def test_commit_that_is_throttled_costs_an_attempt(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = RunDirectory.commit_shard
    faults = iter([TransientStorageError("slow down")])

    def throttled(*arguments: Any) -> str:
        for fault in faults:
            raise fault
        return commit(*arguments)

    monkeypatch.setattr(RunDirectory, "commit_shard", throttled)

    outcome = run(plan_photos(photos, tmp_path / "out"))

    assert outcome.is_settled
    assert len(RunDirectory.open(str(tmp_path / "out")).read_attempts(0)) == 1


def test_shard_is_given_up_and_the_others_are_committed(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    generate = broken_at_shard_1(photos, ValueError("a bug"))
    plan = plan_photos(photos, tmp_path / "out")

    outcome = run(plan, make_generator=lambda config: generate)

    assert outcome.given_up == (1,)
    assert not outcome.is_complete
    assert not outcome.is_settled
    assert outcome.new_images == 5
    assert plan.run_directory.committed(plan.stored) == {0, 2, 3}
    assert summary_of(tmp_path / "out")["shards_given_up"] == [1]
    (why,) = summary_of(tmp_path / "out")["failures"].items()
    assert why[0] == "1"
    assert why[1].startswith("error: ShardError: The model must come through some image")
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    attempts = plan.run_directory.read_attempts(1)
    types = [attempt["error_type"] for attempt in attempts if attempt["error_type"]]
    assert types == ["ValueError"] * (MAX_ERRORS - 1) + ["ShardError"]
    assert [a["reason"] for a in attempts] == ["error"] * MAX_ERRORS + ["given_up"]
    # A fault of the program shows where it is: twice for the attempt, then for both images.
    assert sum(bool(record.exc_info) for record in caplog.records) == MAX_ERRORS + 1


def test_next_run_tries_a_given_up_shard_again(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out")
    run(plan, make_generator=lambda config: broken_at_shard_1(photos, ValueError("a bug")))

    again = run(plan_photos(photos, tmp_path / "out"))

    run(plan_photos(photos, tmp_path / "undisturbed"))
    assert again.is_settled
    assert again.new_images == 2
    assert stored_masks(tmp_path / "out") == stored_masks(tmp_path / "undisturbed")
    assert (tmp_path / "out" / "_SUCCESS").exists()
    assert len(plan.run_directory.read_attempts(1)) == MAX_ERRORS + 1


def test_attempts_of_several_runs_are_all_kept(photos: Path, tmp_path: Path) -> None:
    for _ in range(2):
        run(
            plan_photos(photos, tmp_path / "out"),
            make_generator=lambda config: broken_at_shard_1(photos, ShardError("no")),
        )

    directory = RunDirectory.open(str(tmp_path / "out"))
    reasons = [record["reason"] for record in directory.read_attempts(1)]
    assert reasons == [*["error"] * MAX_ERRORS, "given_up"] * 2


def test_what_a_run_on_ray_learned_is_known_here(photos: Path, tmp_path: Path) -> None:
    """An image that kills its process would kill this one, too."""
    plan = plan_photos(photos, tmp_path / "out")
    shard = list(plan.run_directory.shards(plan.stored))[1]
    for row in (None, 1, 1):
        record = Failure(reason="crash", row=row).to_record(shard)
        plan.run_directory.write_attempt(1, record)
    generate = flaky(photos, KeyboardInterrupt(), times=1)

    outcome = run(plan, make_generator=lambda config: generate)

    assert outcome.counts.images == {"ok": 6, "crash": 1}


def test_what_is_recorded_here_counts_on_ray(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out")
    run(plan, make_generator=lambda config: broken_at_shard_1(photos, ValueError("a bug")))

    records = plan.run_directory.read_all_attempts(skip=())[1]
    shard = list(plan.run_directory.shards(plan.stored))[1]
    assert records[-1]["reason"] == "given_up"
    assert ShardTask.resumed(shard, records).errors == 0
    before_the_last = ShardTask.resumed(shard, records[: MAX_ERRORS - 1])
    assert before_the_last.errors == MAX_ERRORS - 1
    assert before_the_last.is_last_attempt


def test_attempts_that_cannot_be_recorded_end_no_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> int:
        raise TransientStorageError("slow down")

    monkeypatch.setattr(RunDirectory, "write_attempt", fail)
    generate = flaky(photos, MemoryError("full"), times=1)

    outcome = run(plan_photos(photos, tmp_path / "out"), make_generator=lambda config: generate)

    assert outcome.is_settled
    assert "an attempt at shard 1 is not recorded: slow down" in caplog.text


def test_storage_error_ends_the_run_without_an_attempt(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out")

    def fail(result: ImageResult) -> None:
        raise StorageError("gone")

    with pytest.raises(StorageError, match="gone"):
        run(plan, on_image=fail)

    assert plan.run_directory.read_attempts(0) == []
    assert plan.run_directory.committed(plan.stored) == frozenset()


def test_nothing_is_a_success_whose_shards_are_not_there(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out", shard_size=3)
    run(plan)
    (path,) = (tmp_path / "out" / "masks").glob("part-000001-*")
    (tmp_path / "out" / "_SUCCESS").unlink()
    path.unlink()

    ended = outcome.RunTally(plan).conclude()

    assert (ended.missing, ended.given_up) == ((1,), ())
    assert not ended.is_complete
    assert not ended.is_settled
    assert summary_of(tmp_path / "out")["shards_missing"] == [1]
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_shard_that_another_driver_did_is_not_given_up(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out", shard_size=3)
    run(plan)
    tally = outcome.RunTally(plan)
    tally.give_up(1)

    assert tally.conclude().is_settled


@pytest.mark.parametrize(
    ("missing", "unsettled", "expected"),
    [((), 0, (True, True)), ((), 1, (True, False)), ((3,), 0, (False, False))],
)
def test_outcome(missing: tuple[int, ...], unsettled: int, expected: tuple[bool, bool]) -> None:
    outcome = RunOutcome(
        counts=RowCounts({"ok": 1}, unsettled, 0),
        missing=missing,
        given_up=(),
        elapsed_seconds=0.0,
        new_images=0,
    )

    assert (outcome.is_complete, outcome.is_settled) == expected


def test_rate_of_a_run_without_time_is_zero(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outcome.time, "perf_counter", lambda: 5.0)

    run(plan_photos(photos, tmp_path / "out"))

    assert summary_of(tmp_path / "out")["last_run"]["images_per_second"] == 0
