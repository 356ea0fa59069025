"""What is recorded of failed attempts, and what a store that fails does to it: nothing."""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline import attempt_log
from amg_pipeline.attempt_log import AttemptLog
from amg_pipeline.attempts import MAX_ERRORS, Failure, ShardTask
from amg_pipeline.errors import StorageAccessError, StorageError, TransientStorageError
from amg_pipeline.records import ImageRef, Shard
from amg_pipeline.storage.run_directory import RunDirectory

ERROR = Failure(reason="error", error_type="ValueError", message="a bug\nand more", node="n")


@pytest.fixture
def task() -> ShardTask:
    return ShardTask(Shard(7, (ImageRef("a.png", "/in/a.png"),)))


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory.open(str(tmp_path))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    written: list[str] = []

    def log(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
        written.append(event)

    monkeypatch.setattr(attempt_log, "log_event", log)
    return written


def test_a_failure_is_learned_logged_and_stored(
    task: ShardTask, directory: RunDirectory, lines: list[str]
) -> None:
    with closing(AttemptLog(directory)) as log:
        log.add(task, ERROR)
    assert task.errors == 1
    assert lines == ["shard 7: error: ValueError: a bug"]
    assert directory.read_attempts(7) == [ERROR.to_record(task.shard)]


def test_the_last_attempt_says_that_there_is_no_other(
    task: ShardTask, directory: RunDirectory
) -> None:
    with closing(AttemptLog(directory)) as log:
        for _ in range(MAX_ERRORS):
            log.add(task, ERROR)
    assert task.is_exhausted
    reasons = [record["reason"] for record in directory.read_attempts(7)]
    assert reasons == [*["error"] * MAX_ERRORS, "given_up"]


def test_preemption_is_no_attempt(
    task: ShardTask, directory: RunDirectory, lines: list[str]
) -> None:
    with closing(AttemptLog(directory)) as log:
        log.add(task, Failure(reason="preempted"))
    assert directory.read_attempts(7) == []
    assert lines == []


def test_nobody_waits_for_the_store(
    task: ShardTask, directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_later, stored = threading.Event(), []

    def write_slowly(self: RunDirectory, shard_id: int, record: dict[str, Any]) -> int:
        assert is_later.wait(20)
        stored.append(record["error_message"])
        return 1

    monkeypatch.setattr(RunDirectory, "write_attempt", write_slowly)
    with closing(AttemptLog(directory)) as log:
        for number in range(2):
            log.add(task, Failure(reason="error", message=str(number)))
        assert stored == []
        is_later.set()
    assert stored == ["0", "1"]


@pytest.mark.parametrize("kind", [TransientStorageError, StorageAccessError, StorageError])
def test_a_store_that_fails_is_only_logged(
    task: ShardTask,
    directory: RunDirectory,
    lines: list[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
) -> None:
    def fail(*arguments: Any) -> int:
        raise kind("no")

    monkeypatch.setattr(RunDirectory, "write_attempt", fail)
    with closing(AttemptLog(directory)) as log:
        log.add(task, ERROR)
    assert lines[1:] == ["an attempt at shard 7 is not recorded: no"]
