"""Stage timers and log lines."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from amg_pipeline import telemetry
from amg_pipeline.telemetry import ROOT_LOGGER, StageTimer, configure_logging, log_event

LOGGER = logging.getLogger(f"{ROOT_LOGGER}.tests")


@pytest.fixture(autouse=True)
def _put_logging_back() -> Iterator[None]:
    root = logging.getLogger(ROOT_LOGGER)
    before = (root.handlers, root.level, root.propagate)
    yield
    root.handlers, root.level, root.propagate = before


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set by the test."""
    now = [0.0]
    monkeypatch.setattr(telemetry.time, "perf_counter", lambda: now[0])
    return now


def test_stage_timer_sums_by_stage(clock: list[float]) -> None:
    timer = StageTimer()
    with timer.stage("load"):
        clock[0] += 2
        with timer.stage("generate"):
            clock[0] += 5
    with timer.stage("load"):
        clock[0] += 1

    assert timer.seconds == {"load": 8.0, "generate": 5.0}


def test_stage_timer_names_the_slowest_subjects(clock: list[float]) -> None:
    timer = StageTimer()
    for subject, seconds in (("a", 1), ("b", 3), ("a", 4), ("c", 3)):
        with timer.stage("load", subject=subject):
            clock[0] += seconds
    with timer.stage("commit"):
        clock[0] += 100

    assert timer.slowest(2) == (("a", 5.0), ("b", 3.0))
    assert timer.slowest(9)[-1] == ("c", 3.0)


def test_stage_timer_counts_a_stage_that_failed(clock: list[float]) -> None:
    timer = StageTimer()

    def fail() -> None:
        with timer.stage("load"):
            clock[0] += 3
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()

    assert timer.seconds == {"load": 3.0}


def test_stage_timer_gives_a_copy() -> None:
    timer = StageTimer()
    timer.seconds["load"] = 1.0

    assert timer.seconds == {}


def test_stage_timer_loses_nothing_among_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each reading is one second after the last of its thread, so that every stage takes one.
    readings = threading.local()

    def read() -> float:
        readings.now = getattr(readings, "now", 0.0) + 1.0
        return float(readings.now)

    monkeypatch.setattr(telemetry.time, "perf_counter", read)
    timer = StageTimer()

    def stage(number: int) -> None:
        with timer.stage(f"stage {number % 2}"):
            pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(stage, range(400)))

    assert timer.seconds == {"stage 0": 200.0, "stage 1": 200.0}


def test_plain_line_shows_event_and_fields() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)

    log_event(LOGGER, logging.WARNING, "shard failed", shard_id=3, reason="full")

    assert stream.getvalue().rstrip("\n").split(" ", 1)[1] == (
        "WARNING shard failed shard_id=3 reason=full"
    )


def test_plain_line_without_fields() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)

    LOGGER.warning("of %s", "another library")

    assert stream.getvalue().endswith(" WARNING of another library\n")


def test_cause_brings_its_traceback() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    try:
        int("broken")
    except ValueError as error:
        log_event(LOGGER, logging.ERROR, "failed", cause=error)

    text = stream.getvalue()
    assert "Traceback" in text
    assert "ValueError: invalid literal" in text


def test_level_hides_what_is_below() -> None:
    stream = io.StringIO()
    configure_logging("WARNING", stream=stream)

    log_event(LOGGER, logging.INFO, "hidden")
    log_event(LOGGER, logging.WARNING, "shown")

    assert "hidden" not in stream.getvalue()
    assert "shown" in stream.getvalue()


def test_only_the_last_configuration_counts() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging(stream=first)
    configure_logging(stream=second)

    LOGGER.warning("once")

    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1


def test_lines_go_to_standard_error_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging()

    LOGGER.warning("here")

    captured = capsys.readouterr()
    assert captured.out == ""
    assert "here" in captured.err
