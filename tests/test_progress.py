"""Progress: a bar on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import io
import sys
import threading
import time

import pytest

from amg_pipeline.progress import DownloadProgress, RunProgress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lines(io.StringIO):
    """Tells when some lines are there."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count
        self._are_there = threading.Event()

    def write(self, text: str) -> int:
        written = super().write(text)
        if self.getvalue().count("\n") >= self._count:
            self._are_there.set()
        return written

    def wait(self) -> None:
        assert self._are_there.wait(10)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_though_no_image_does() -> None:
    stream = Lines(2)
    with RunProgress(100, stream=stream, interval=0.001):
        stream.wait()

    line = "0/100 images, 0 masks, 0.00 images/s, no rate yet"
    assert stream.getvalue().splitlines()[:2] == [line, line]


def test_plain_line_tells_of_this_run() -> None:
    clock, stream = Clock(), Lines(1)
    progress = RunProgress(100, done=90, stream=stream, clock=clock, interval=0.001)
    clock.now += 40
    progress.on_image(3)
    with progress:
        stream.wait()

    assert stream.getvalue().splitlines()[0] == "91/100 images, 3 masks, 0.03 images/s, 360 s left"


def test_plain_nothing_in_a_short_run() -> None:
    stream = io.StringIO()
    with RunProgress(2, stream=stream) as progress:
        progress.on_image(0)

    assert stream.getvalue() == ""


def test_no_plain_line_after_the_end() -> None:
    stream = Lines(1)
    with RunProgress(2, stream=stream, interval=0.001):
        stream.wait()
    said = stream.getvalue()
    time.sleep(0.01)

    assert stream.getvalue() == said


def test_terminal_shows_a_bar_with_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    with RunProgress(10, done=4, stream=stream) as progress:
        progress.on_image(3)
        progress.on_image(0)

    assert "6/10" in stream.getvalue()
    assert "3 masks" in stream.getvalue()


def test_run_progress_keeps_standard_output_clean(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with RunProgress(1, interval=0.001) as progress:
        progress.on_image(0)
        time.sleep(0.1)

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("1/1 images")


def test_bar_is_taken_down_when_the_run_fails() -> None:
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), RunProgress(10, stream=stream):
        raise KeyboardInterrupt

    # The cursor that the bar hid is shown again.
    assert stream.getvalue().count("\x1b[?25h") == stream.getvalue().count("\x1b[?25l")


def test_download_gives_a_line_per_tenth() -> None:
    stream = io.StringIO()
    size = 50 * 2**20
    with DownloadProgress("vit_b", stream=stream) as progress:
        for have in range(0, size + 1, 2**20):
            progress.on_bytes(have, size)

    lines = stream.getvalue().splitlines()
    assert lines[0] == "vit_b: 0 of 50 MiB"
    assert lines[1] == "vit_b: 5 of 50 MiB"
    assert lines[-1] == "vit_b: 50 of 50 MiB"
    assert len(lines) == 11


def test_download_of_nothing_is_no_division_by_zero() -> None:
    stream = io.StringIO()
    with DownloadProgress("vit_b", stream=stream) as progress:
        progress.on_bytes(0, 0)

    assert stream.getvalue() == "vit_b: 0 of 0 MiB\n"


def test_download_on_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with DownloadProgress("vit_b") as progress:
        progress.on_bytes(3_000_000, 6_000_000)

    assert "vit_b" in stream.getvalue()
    assert "3.0/6.0 MB" in stream.getvalue()
