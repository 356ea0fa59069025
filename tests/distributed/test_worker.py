"""A worker as a plain class in this process: what it tells, what it keeps, how it ends."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.config import RunConfig
from amg_pipeline.distributed import worker as worker_module
from amg_pipeline.distributed.worker import (
    AttemptFailed,
    RowDone,
    ShardWorker,
    WorkerEvent,
)
from amg_pipeline.errors import (
    ConfigError,
    ShardError,
    StorageAccessError,
    TransientStorageError,
    WeightsError,
)
from amg_pipeline.local_runner import run_locally
from amg_pipeline.planning import Plan
from amg_pipeline.records import DecodedImage, ImageRef, ImageResult, ShardReport
from amg_pipeline.shard_runner import MaskGenerator
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.object_store import ObjectStore
from tests.distributed.workers import (
    Pixels,
    failure_of,
    generates,
    loaded_worker,
    run,
    setup_of,
    shard_of,
)
from tests.photo_runs import (
    Found,
    make_threshold_generator,
    plan_photos,
    stored_masks,
    threshold_masks,
    write_photos,
)


@pytest.fixture(autouse=True)
def _own_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave this process's logging alone."""
    monkeypatch.setattr(worker_module, "configure_logging", lambda: None)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two shards of four photos, the second of which is damaged."""
    folder = write_photos(tmp_path / "in", 8)
    (folder / "001.png").write_bytes(b"no image")
    return plan_photos(folder, tmp_path / "out", shard_size=4)


# A shard that goes well


def test_a_shard_tells_of_each_row_and_ends_with_its_report(plan: Plan) -> None:
    events = run(loaded_worker(plan), shard_of(plan))

    *rows, report = events
    assert isinstance(report, ShardReport)
    assert [row.status for row in rows if isinstance(row, RowDone)] == [
        *("ok", "decode_error", "ok", "ok")
    ]
    assert sum(row.num_masks for row in rows if isinstance(row, RowDone)) == report.masks > 0
    assert report.images == {"ok": 3, "decode_error": 1}


def test_shards_have_the_local_runners_bytes(plan: Plan, tmp_path: Path) -> None:
    local = plan_photos(tmp_path / "in", tmp_path / "local", shard_size=4)
    run_locally(local, make_generator=make_threshold_generator)

    worker = loaded_worker(plan)
    for number in range(2):
        run(worker, shard_of(plan, number))

    assert stored_masks(tmp_path / "out") == stored_masks(tmp_path / "local")


def test_rows_are_told_while_the_shard_runs(plan: Plan) -> None:
    go_on = threading.Event()
    seen = []

    def masks(pixels: Pixels) -> Found:
        seen.append(pixels)
        if len(seen) == 2:
            assert go_on.wait(20)
        return threshold_masks(pixels)

    told = loaded_worker(plan, make_generator=generates(masks)).run_shard(shard_of(plan), {}, False)
    assert next(told) == (), "at first it says that the shard is here"
    first = next(told)
    assert RowDone("ok", len(threshold_masks(seen[0]).records)) in first
    assert not any(isinstance(event, ShardReport) for event in first)
    go_on.set()
    assert isinstance(list(told)[-1][-1], ShardReport)


def test_rows_that_follow_each_other_closely_are_told_together(plan: Plan) -> None:
    """A message costs the driver more than a row."""
    news = list(loaded_worker(plan).run_shard(shard_of(plan), {}, False))
    assert len(news) <= 3
    assert sum(len(events) for events in news) == 5


def test_a_second_shard_loads_while_the_first_has_the_model(plan: Plan) -> None:
    go_on, loaded = threading.Event(), threading.Event()
    second = shard_of(plan, 1)

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        if ref in second.images:
            loaded.set()
        return load_image(ref, **options)

    def masks(pixels: Pixels) -> Found:
        assert go_on.wait(20)
        return threshold_masks(pixels)

    worker = loaded_worker(plan, make_generator=generates(masks), load=load)
    events: dict[int, list[WorkerEvent]] = {}
    threads = [
        threading.Thread(
            target=lambda n=number: events.update({n: run(worker, shard_of(plan, n))})  # type: ignore[misc]
        )
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    assert loaded.wait(20)
    go_on.set()
    for thread in threads:
        thread.join(20)
    assert all(isinstance(events[number][-1], ShardReport) for number in range(2))


def test_known_rows_are_committed_as_they_are(plan: Plan) -> None:
    shard = shard_of(plan)
    known = {2: ImageResult(shard.images[2], "crash", error_type="WorkerDied", error_message="it")}
    touched = []

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        touched.append(ref)
        return load_image(ref, **options)

    events = run(loaded_worker(plan, load=load), shard, known)

    assert isinstance(events[-1], ShardReport)
    assert events[-1].images == {"ok": 2, "decode_error": 1, "crash": 1}
    assert shard.images[2] not in touched


class Metrics:
    """Notes what is counted."""

    def __init__(self) -> None:
        self.statuses: list[str] = []
        self.masks = 0
        self.seconds: list[float] = []

    def add_shard(self, report: ShardReport, rows: Iterable[RowDone], *, seconds: float) -> None:
        rows = list(rows)
        self.statuses += [row.status for row in rows]
        self.masks += sum(row.num_masks for row in rows)
        self.seconds.append(seconds)


def counted(plan: Plan, **options: Any) -> tuple[ShardWorker, Metrics]:
    worker, metrics = loaded_worker(plan, **options), Metrics()
    worker.count_with(metrics)  # type: ignore[arg-type]
    return worker, metrics


def test_metrics_count_rows_and_the_shard(plan: Plan) -> None:
    worker, metrics = counted(plan)
    reports = [run(worker, shard_of(plan, number))[-1] for number in range(2)]
    assert sorted(metrics.statuses) == ["decode_error", *["ok"] * 7]
    assert metrics.masks == sum(r.masks for r in reports if isinstance(r, ShardReport)) > 0
    assert len(metrics.seconds) == 2
    assert min(metrics.seconds) > 0


def test_metrics_count_a_shard_that_is_tried_again_once(plan: Plan) -> None:
    faults = [RuntimeError("no luck")]

    def masks(pixels: Pixels) -> Found:
        if pixels.shape[0] == 8 and faults:
            raise faults.pop()
        return threshold_masks(pixels)

    worker, metrics = counted(plan, make_generator=generates(masks))
    assert failure_of(run(worker, shard_of(plan))).reason == "error"
    assert metrics.statuses == []
    run(worker, shard_of(plan))
    assert sorted(metrics.statuses) == ["decode_error", "ok", "ok", "ok"]


def test_metrics_leave_out_rows_that_an_earlier_commit_had(plan: Plan) -> None:
    worker, metrics = counted(plan)
    again = replace(shard_of(plan), redo=frozenset({1}))
    run(worker, again)  # its object is not there, so all of it is done
    assert len(metrics.statuses) == 4
    metrics.statuses.clear()
    run(worker, again)
    assert metrics.statuses == ["decode_error"]


# Images that are tried alone


def test_rows_that_were_tried_alone_are_not_tried_again(plan: Plan) -> None:
    shard = shard_of(plan)
    touched: list[str] = []

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        touched.append(ref.image_id)
        return load_image(ref, **options)

    worker = loaded_worker(plan, load=load)
    outcomes = [worker.try_image(0, row, shard.images[row]) for row in (1, 3)]
    assert [outcome.status for outcome in outcomes if isinstance(outcome, RowDone)] == [
        *("decode_error", "ok")
    ]
    events = run(worker, shard)

    assert isinstance(events[-1], ShardReport)
    assert events[-1].images == {"ok": 3, "decode_error": 1}
    assert sorted(touched) == ["000.png", "001.png", "002.png", "003.png"]


def test_rows_that_were_tried_are_of_one_shard_and_used_once(plan: Plan) -> None:
    first, second = shard_of(plan), shard_of(plan, 1)
    worker = loaded_worker(plan)
    worker.try_image(0, 0, first.images[0])
    worker.try_image(1, 1, second.images[1])
    run(worker, first)
    run(worker, second)
    rows = stored_masks(plan.run_directory.uri)

    fresh = loaded_worker(plan)
    for shard in (first, second):
        run(fresh, shard)
    assert stored_masks(plan.run_directory.uri) == rows


def test_a_condemned_row_wins_over_a_tried_one(plan: Plan) -> None:
    shard = shard_of(plan)
    worker = loaded_worker(plan)
    worker.try_image(0, 0, shard.images[0])
    known = {0: ImageResult(shard.images[0], "timeout", error_type="T", error_message="m")}
    report = run(worker, shard, known)[-1]
    assert isinstance(report, ShardReport)
    assert report.images["timeout"] == 1


def test_an_error_that_may_pass_is_left_to_the_shards_run(plan: Plan) -> None:
    """It left its worker alive; only the run of the shard knows whether it is the last attempt."""
    shard = shard_of(plan)

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        if ref.image_id == "002.png":
            raise TransientStorageError("the store is slow")
        return load_image(ref, **options)

    worker = loaded_worker(plan, load=load)
    assert worker.try_image(0, 2, shard.images[2]) == RowDone("error", 0)
    assert failure_of(run(worker, shard)).reason == "error"
    worker.try_image(0, 2, shard.images[2])
    report = run(worker, shard, is_last_attempt=True)[-1]
    assert isinstance(report, ShardReport)
    assert report.images == {"ok": 2, "decode_error": 1, "fetch_error": 1}


def test_a_broken_accelerator_is_told_of_an_image_alone_too(plan: Plan) -> None:
    def masks(pixels: Pixels) -> Found:
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")

    worker = loaded_worker(plan, make_generator=generates(masks))
    outcome = worker.try_image(0, 0, shard_of(plan).images[0])
    assert isinstance(outcome, AttemptFailed)
    assert outcome.reason == "device"


# Failures


def test_an_exception_of_the_model_fails_the_attempt_and_leaves_the_worker_usable(
    plan: Plan,
) -> None:
    faults = [RuntimeError("no luck")]

    def masks(pixels: Pixels) -> Found:
        if faults:
            raise faults.pop()
        return threshold_masks(pixels)

    worker = loaded_worker(plan, make_generator=generates(masks))
    failure = failure_of(run(worker, shard_of(plan)))
    assert (failure.reason, failure.error_type) == ("error", "RuntimeError")
    assert "no luck" in failure.message
    assert not failure.is_fatal
    assert stored_masks(plan.run_directory.uri) == {}
    assert isinstance(run(worker, shard_of(plan))[-1], ShardReport)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_ends_a_thread_is_told_at_once_as_a_crash(plan: Plan, error: BaseException) -> None:
    """Not told, it would be noticed only by the time-out of an image."""

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        if ref.image_id == "002.png":
            raise error
        return load_image(ref, **options)

    worker = loaded_worker(plan, load=load)
    events = run(worker, shard_of(plan))
    failure = failure_of(events)
    assert (failure.reason, failure.error_type) == ("crash", type(error).__name__)
    alone = worker.try_image(0, 2, shard_of(plan).images[2])
    assert isinstance(alone, AttemptFailed)
    assert alone.reason == "crash"


def test_a_device_fault_is_told_as_one(plan: Plan) -> None:
    def masks(pixels: Pixels) -> Found:
        raise RuntimeError("cudaErrorIllegalAddress: CUDA error")

    failure = failure_of(run(loaded_worker(plan, make_generator=generates(masks)), shard_of(plan)))
    assert failure.reason == "device"


def test_memory_of_the_device_is_an_error_until_the_last_attempt(plan: Plan) -> None:
    def masks(pixels: Pixels) -> Found:
        if pixels.shape[0] == 5:
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return threshold_masks(pixels)

    worker = loaded_worker(plan, make_generator=generates(masks))
    assert failure_of(run(worker, shard_of(plan))).reason == "error"
    report = run(worker, shard_of(plan), is_last_attempt=True)[-1]
    assert isinstance(report, ShardReport)
    assert report.images == {"ok": 2, "decode_error": 1, "out_of_memory": 1}


@pytest.mark.parametrize(
    ("error", "is_fatal"),
    [
        (StorageAccessError("no such bucket"), True),
        (TransientStorageError("slow down"), False),
        (ShardError("an image"), False),
    ],
)
def test_only_a_store_that_refuses_for_good_is_fatal(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, error: Exception, is_fatal: bool
) -> None:
    def refuse(self: ObjectStore, key: str, data: bytes) -> None:
        raise error

    worker = loaded_worker(plan)
    monkeypatch.setattr(ObjectStore, "put", refuse)
    failure = failure_of(run(worker, shard_of(plan)))
    assert (failure.reason, failure.is_fatal) == ("error", is_fatal)
    assert failure.message == str(error)


def test_a_shard_before_the_model_is_an_error_of_the_attempt(plan: Plan) -> None:
    failure = failure_of(run(ShardWorker(setup_of(plan)), shard_of(plan)))
    assert failure.error_type == "ShardError"
    assert "load its model first" in failure.message


@pytest.mark.parametrize("error", [WeightsError("do not fit"), ConfigError("no backend")])
def test_a_model_that_cannot_be_made_is_raised(plan: Plan, error: Exception) -> None:
    def fail(config: RunConfig) -> MaskGenerator:
        raise error

    worker = ShardWorker(setup_of(plan, make_generator=fail))
    with pytest.raises(type(error), match=str(error)):
        worker.load_model()


@pytest.mark.parametrize("is_there", [True, False])
def test_an_output_that_is_another_one_on_this_machine_is_refused(
    plan: Plan, tmp_path: Path, is_there: bool
) -> None:
    """A folder of one machine: what is committed to it elsewhere would be lost."""
    here = tmp_path / "here"
    if is_there:
        plan_photos(tmp_path / "in", here, shard_size=3)
    setup = replace(setup_of(plan), output_uri=str(here))
    reason = "the plan of another run" if is_there else "no plan"
    with pytest.raises(ConfigError, match=rf"OUTPUT must be one and the same.*{reason}"):
        ShardWorker(setup).load_model()


# What travels


def test_setup_and_events_survive_the_way_between_processes(plan: Plan) -> None:
    setup = setup_of(plan)
    assert pickle.loads(pickle.dumps(setup)) == setup
    events = run(loaded_worker(plan), shard_of(plan))
    assert pickle.loads(pickle.dumps(events)) == events
    assert len(pickle.dumps(events[0])) < 200, "rows are told by a few numbers"


def test_the_settings_of_stores_hold_in_the_workers_process(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(worker_module, "configure_stores", asked.append)

    loaded_worker(plan)

    assert asked == [plan.config.storage]
