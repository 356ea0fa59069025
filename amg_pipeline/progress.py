"""Shows how far a run is: a bar on a terminal, one plain line every 30 seconds elsewhere.

The line comes whether anything was done or not, so that a log shows when a run stands still.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Self, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PLAIN_INTERVAL_SECONDS = 30.0


class RunProgress:
    """Counts images and masks of a run as they are done; a context manager.

    Args:
        total: Images of the run.
        done: Images that were done before.
        stream: Where to write; standard error by default, so that standard output stays clean.
        clock: Gives seconds.
        interval: Seconds between plain lines.
    """

    def __init__(
        self,
        total: int,
        *,
        done: int = 0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        interval: float = PLAIN_INTERVAL_SECONDS,
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._total = total
        self._done = self._done_before = done
        self._masks = 0
        self._started = clock()
        self._interval = interval
        self._ended = threading.Event()
        self._printer = threading.Thread(target=self._print_lines, name="progress", daemon=True)
        self._bar = _make_bar(self._stream) if self._stream.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._task = self._bar.add_task(
                "images", total=self._total, completed=self._done, masks=0
            )
            self._bar.start()
        else:
            self._printer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        else:
            self._ended.set()
            self._printer.join()

    def on_image(self, masks: int) -> None:
        """Count one image and its masks."""
        self._done += 1
        self._masks += masks
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, masks=self._masks)

    def _print_lines(self) -> None:
        while not self._ended.wait(self._interval):
            print(self._line(), file=self._stream, flush=True)

    def _line(self) -> str:
        elapsed = self._clock() - self._started
        rate = (self._done - self._done_before) / elapsed if elapsed > 0 else 0.0
        remaining = f"{(self._total - self._done) / rate:.0f} s left" if rate else "no rate yet"
        return (
            f"{self._done}/{self._total} images, {self._masks} masks, "
            f"{rate:.2f} images/s, {remaining}"
        )


def _make_bar(stream: TextIO) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[masks]} masks"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )


class DownloadProgress:
    """Shows how much of a file is there: a bar on a terminal, a line per tenth elsewhere.

    Args:
        name: What is downloaded.
        stream: Where to write; standard error by default.
    """

    def __init__(self, name: str, *, stream: TextIO | None = None) -> None:
        self._name = name
        self._stream = stream or sys.stderr
        self._tenths = -1
        self._bar = None
        if self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task(name, total=None)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def on_bytes(self, have: int, size: int) -> None:
        """Take note that `have` of `size` bytes are there."""
        if self._bar is not None:
            self._bar.update(self._task, completed=have, total=size)
        elif have * 10 // max(size, 1) > self._tenths:
            self._tenths = have * 10 // max(size, 1)
            print(
                f"{self._name}: {have / 2**20:.0f} of {size / 2**20:.0f} MiB",
                file=self._stream,
                flush=True,
            )
