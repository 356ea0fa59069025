"""A worker that holds too much memory says so and ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from amg_pipeline.distributed import worker as worker_module
from amg_pipeline.distributed.memory_guard import MemoryGuard
from amg_pipeline.distributed.worker import (
    AttemptFailed,
    ShardWorker,
)
from amg_pipeline.errors import (
    ConfigError,
)
from amg_pipeline.planning import Plan
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
    plan_photos,
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


class _FakeGuard:
    """Too much memory when the test says so."""

    def __init__(self, limit_bytes: int) -> None:
        self.exceeded = threading.Event()

    def refuse_start(self) -> None:
        pass


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[_FakeGuard]:
    guard = _FakeGuard(0)
    monkeypatch.setattr(worker_module, "MemoryGuard", lambda limit: guard)
    monkeypatch.setattr(worker_module, "_LAST_WORDS_SECONDS", 0.01)
    return guard


@pytest.fixture
def limited_plan(tmp_path: Path) -> Plan:
    folder = write_photos(tmp_path / "in", 4)
    return plan_photos(folder, tmp_path / "out", "workers.memory_limit_bytes=1", shard_size=4)


def test_too_much_memory_is_told_and_ends_the_process(
    limited_plan: Plan, guard: _FakeGuard
) -> None:
    go_on, ended = threading.Event(), threading.Event()
    codes: list[int] = []

    def masks(pixels: Pixels) -> Found:
        guard.exceeded.set()
        assert go_on.wait(20)
        return threshold_masks(pixels)

    def end(code: int) -> None:
        codes.append(code)
        ended.set()

    worker = loaded_worker(limited_plan, make_generator=generates(masks), end_process=end)
    events = run(worker, shard_of(limited_plan))
    assert ended.wait(20)
    go_on.set()
    assert [failure_of(events).reason, len(events)] == ["out_of_memory", 1]
    assert codes[0] != 0


def test_a_row_of_the_moment_in_which_memory_ran_out_stays_a_suspect(
    limited_plan: Plan, guard: _FakeGuard
) -> None:
    """An image may be done before the guard's finding is seen: its row is not told, so that it is
    among the suspects."""
    is_second = threading.Event()
    go_on = threading.Event()

    def masks(pixels: Pixels) -> Found:
        if is_second.is_set():
            assert go_on.wait(20)
        is_second.set()
        guard.exceeded.set()
        return threshold_masks(pixels)

    worker = loaded_worker(
        limited_plan, make_generator=generates(masks), end_process=lambda code: None
    )
    events = run(worker, shard_of(limited_plan))
    go_on.set()
    assert [type(event) for event in events] == [AttemptFailed]


def test_an_image_that_is_done_with_too_much_memory_is_blamed_and_not_the_next_one(
    limited_plan: Plan, guard: _FakeGuard
) -> None:
    def masks(pixels: Pixels) -> Found:
        guard.exceeded.set()
        return threshold_masks(pixels)

    worker = loaded_worker(
        limited_plan, make_generator=generates(masks), end_process=lambda code: None
    )
    outcome = worker.try_image(0, 0, shard_of(limited_plan).images[0])
    assert isinstance(outcome, AttemptFailed)
    assert outcome.reason == "out_of_memory"


def test_an_image_that_eats_memory_alone_does_not_have_to_end(
    limited_plan: Plan, guard: _FakeGuard
) -> None:
    go_on = threading.Event()

    def masks(pixels: Pixels) -> Found:
        guard.exceeded.set()
        assert go_on.wait(20)
        return threshold_masks(pixels)

    worker = loaded_worker(
        limited_plan, make_generator=generates(masks), end_process=lambda code: None
    )
    started = time.monotonic()
    outcome = worker.try_image(0, 0, shard_of(limited_plan).images[0])
    assert time.monotonic() - started < 15
    go_on.set()
    assert isinstance(outcome, AttemptFailed)
    assert outcome.reason == "out_of_memory"


def test_a_limit_that_the_model_alone_exceeds_is_refused_at_once(limited_plan: Plan) -> None:
    worker = ShardWorker(setup_of(limited_plan))
    with pytest.raises(ConfigError, match="leave room beside the model"):
        worker.load_model()


def test_no_limit_means_no_guard(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(limit: int) -> MemoryGuard:
        pytest.fail("a guard without a limit")

    monkeypatch.setattr(worker_module, "MemoryGuard", refuse)
    loaded_worker(plan)
