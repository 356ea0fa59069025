"""What a run says about itself: stage timings and structured log lines."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

#: Every logger of the package is below this one.
ROOT_LOGGER = "amg_pipeline"


class StageTimer:
    """Sums wall-clock seconds by stage; threads may time stages at once.

    Seconds of stages that overlap add up, so their sum may exceed the elapsed time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._of_subjects: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str, *, subject: str | None = None) -> Iterator[None]:
        """Time a block, whether it ends well or not.

        Args:
            name: Of the stage.
            subject: What is worked on, whose seconds are summed over its stages, too.
        """
        started = time.perf_counter()
        try:
            yield
        finally:
            elapsed = time.perf_counter() - started
            with self._lock:
                self._seconds[name] += elapsed
                if subject is not None:
                    self._of_subjects[subject] += elapsed

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage so far."""
        with self._lock:
            return dict(self._seconds)

    def slowest(self, count: int) -> tuple[tuple[str, float], ...]:
        """Give the `count` subjects that took longest, with their seconds, the slowest first."""
        with self._lock:
            found = sorted(self._of_subjects.items(), key=lambda item: (-item[1], item[0]))
        return tuple(found[:count])


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={value}" for key, value in getattr(record, "fields", {}).items())
        text = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname} {record.getMessage()}"
        traceback = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{text}{fields}{traceback}"


def configure_logging(level: str = "INFO", *, stream: TextIO | None = None) -> None:
    """Send the package's log lines to a stream, one line each; only the last call counts.

    Args:
        level: The least level that is shown.
        stream: Where to; standard error by default.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_LineFormatter())
    logger = logging.getLogger(ROOT_LOGGER)
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False


def log_event(
    logger: logging.Logger,
    level: int,
    event: str,
    /,
    *,
    cause: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log an event with its fields apart from its text; never put credentials into either.

    Args:
        logger: Of the module that logs.
        level: As in `logging`.
        event: What happened.
        cause: An error whose traceback is of use to who reads the log.
        **fields: Facts about the event.
    """
    logger.log(level, event, exc_info=cause, extra={"fields": fields})
