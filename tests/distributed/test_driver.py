"""Runs on a real Ray, a stub in place of the model: the same rows and bytes whatever happens."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from amg_pipeline.attempts import MAX_ERRORS
from amg_pipeline.distributed.driver import run_distributed
from amg_pipeline.errors import AmgPipelineError, WeightsError
from amg_pipeline.local_runner import run_locally
from amg_pipeline.planning import Plan
from amg_pipeline.storage.mask_table import load_masks
from tests.distributed import stubs
from tests.photo_runs import (
    make_threshold_generator,
    plan_photos,
    stored_masks,
    write_photo,
    write_photos,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def run(plan: Plan, **options: object) -> object:
    return run_distributed(
        plan,
        **{"make_generator": stubs.make_threshold_generator, **options},  # type: ignore[arg-type]
    )


def statuses(out: object) -> dict[str, str]:
    rows = load_masks(str(out)).to_table(columns=["image_id", "status"]).to_pylist()
    assert len({row["image_id"] for row in rows}) == len(rows)
    return {row["image_id"]: row["status"] for row in rows}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_photos(tmp_path_factory.mktemp("run") / "in", 11)
    (folder / "004.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("shard_size", [3, 11])
def test_any_number_of_workers_gives_the_local_runners_bytes(
    photos: Path, tmp_path: Path, workers: int, shard_size: int
) -> None:
    local = plan_photos(photos, tmp_path / "local", shard_size=shard_size)
    run_locally(local, make_generator=make_threshold_generator)
    seen: list[int] = []

    plan = plan_photos(
        photos, tmp_path / "ray", f"workers.workers={workers}", shard_size=shard_size
    )
    outcome = run(plan, on_image=seen.append)

    assert outcome.is_settled
    assert stored_masks(tmp_path / "ray") == stored_masks(tmp_path / "local")
    assert (len(seen), sum(seen)) == (11, outcome.counts.masks)
    assert (tmp_path / "ray" / "_SUCCESS").exists()


def test_a_run_that_is_done_starts_no_worker_and_a_partial_one_is_finished(
    photos: Path, tmp_path: Path
) -> None:
    plan = plan_photos(photos, tmp_path / "out", "workers.workers=2", shard_size=3)
    run(plan)
    whole = stored_masks(tmp_path / "out")
    (tmp_path / "out" / sorted(whole)[1]).unlink()

    outcome = run(plan, make_generator=make_threshold_generator)
    assert outcome.new_images == 3
    assert stored_masks(tmp_path / "out") == whole
    # A generator that cannot be made would be noticed.
    assert run(plan, make_generator=stubs.fail_to_start).new_images == 0


@pytest.mark.chaos  # long, and a loaded machine makes it longer
def test_poisonous_images_get_rows_and_cost_nobody_else_theirs(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "in", 57)
    for name in ("010-segfault.png", "025-hang.png", "040-eat.png"):
        write_photo(folder / name)
    for number in range(4):
        (folder / f"05{number}-bad.png").write_bytes(b"no image")
    plan = plan_photos(
        folder,
        tmp_path / "out",
        "workers.workers=2",
        "workers.image_timeout_seconds=8",
        f"workers.memory_limit_bytes={2**30}",
        shard_size=8,
    )

    outcome = run(plan, load=stubs.load_poison)

    assert outcome.is_complete
    assert not outcome.is_settled
    assert Counter(statuses(tmp_path / "out").values()) == {
        "ok": 57,
        "decode_error": 4,
        "crash": 1,
        "timeout": 1,
        "out_of_memory": 1,
    }
    rows = statuses(tmp_path / "out")
    assert rows["010-segfault.png"] == "crash"
    assert rows["025-hang.png"] == "timeout"
    assert rows["040-eat.png"] == "out_of_memory"
    attempts = plan.run_directory.read_all_attempts(skip=())
    assert {a["reason"] for records in attempts.values() for a in records} == {
        "crash",
        "timeout",
        "out_of_memory",
    }
    # Who has to look for the culprit finds it by name.
    alone = [
        a["suspects"] for records in attempts.values() for a in records if a["row"] is not None
    ]
    assert sorted({tuple(s) for s in alone}) == [
        ("010-segfault.png",),
        ("025-hang.png",),
        ("040-eat.png",),
    ]


def test_what_a_driver_learned_survives_it(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "in", 6)
    write_photo(folder / "002-segfault.png")
    plan = plan_photos(folder, tmp_path / "out", shard_size=7)
    for row in (None, 2, 2):
        record = {"reason": "crash", "row": row, "rows_done": 2 if row is None else 0}
        plan.run_directory.write_attempt(0, record)

    outcome = run(plan, load=stubs.load_poison)

    assert statuses(tmp_path / "out")["002-segfault.png"] == "crash"
    assert len(plan.run_directory.read_attempts(0)) == 3, "the culprit was known already"
    assert outcome.counts.images == {"ok": 6, "crash": 1}


def test_a_shard_that_keeps_failing_is_given_up_and_tried_anew_by_the_next_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amg_pipeline.distributed.driver._FIRST_WAIT_SECONDS", 0.01)
    plan = plan_photos(photos, tmp_path / "out", "workers.workers=2", shard_size=4)

    outcome = run(plan, make_generator=stubs.break_on_photos_4_to_7)

    assert outcome.given_up == (1,)
    assert not outcome.is_complete
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    summary = json.loads((tmp_path / "out" / "_amg" / "summary.json").read_text())
    assert summary["shards_given_up"] == [1]
    assert summary["last_run"]["attempts_failed"] == {"error": MAX_ERRORS}
    assert run(plan).is_settled
    local = plan_photos(photos, tmp_path / "local", shard_size=4)
    run_locally(local, make_generator=make_threshold_generator)
    assert stored_masks(tmp_path / "out") == stored_masks(tmp_path / "local")


def test_a_broken_accelerator_costs_its_process_and_no_row(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out", shard_size=4)

    outcome = run(plan, make_generator=stubs.BreakDeviceOnce(tmp_path / "mark"))

    assert outcome.is_settled
    assert outcome.counts.images == {"ok": 10, "decode_error": 1}
    attempts = plan.run_directory.read_all_attempts(skip=())
    assert {a["reason"] for records in attempts.values() for a in records} == {"device"}


def test_weights_that_do_not_fit_end_the_run_at_once(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out")
    with pytest.raises(WeightsError, match="must fit tiny"):
        run(plan, make_generator=stubs.refuse_weights)


def test_workers_that_never_come_up_end_the_run(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out")
    with pytest.raises(AmgPipelineError, match="no such library"):
        run(plan, make_generator=stubs.fail_to_start)


def test_each_worker_sees_its_own_gpu_only_and_a_worker_without_one_sees_none(
    photos: Path, tmp_path: Path
) -> None:
    by_shard: dict[str, set[str]] = {}
    for name, gpus in (("gpu", 1), ("cpu", 0)):
        seen = tmp_path / name
        seen.mkdir()
        plan = plan_photos(
            photos,
            tmp_path / f"out-{name}",
            "workers.workers=2",
            f"workers.gpus_per_worker={gpus}",
            shard_size=2,
        )
        run(plan, make_generator=stubs.NoteDevices(seen))
        by_shard[name] = {path.read_text() for path in seen.iterdir()}
    assert by_shard == {"gpu": {"0", "1"}, "cpu": {"-1"}}


def test_two_workers_work_at_the_same_time(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "in", 80)
    plan = plan_photos(folder, tmp_path / "out", "workers.workers=2", shard_size=5)
    run(plan, make_generator=stubs.SlowGenerator(0.1))

    stats = list(plan.run_directory.read_stats(range(16)))
    started = min(record["finished_at"] - record["elapsed_seconds"] for record in stats)
    span = max(record["finished_at"] for record in stats) - started
    # One worker has one shard in its model at a time, so alone it would be busy for the span.
    assert sum(record["elapsed_seconds"] for record in stats) > 1.1 * span
