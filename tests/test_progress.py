"""Progress: a bar on a terminal, plain lines now and then elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from amg_pipeline.progress import DownloadProgress, RunProgress


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_line_every_thirty_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    with RunProgress(100, stream=stream, clock=clock) as progress:
        for _ in range(13):
            clock.now += 5
            progress.on_image(3)

    assert stream.getvalue().splitlines() == [
        "6/100 images, 18 masks, 0.20 images/s, 470 s left",
        "12/100 images, 36 masks, 0.20 images/s, 440 s left",
    ]


def test_plain_nothing_before_thirty_seconds() -> None:
    clock, stream = Clock(), io.StringIO()
    with RunProgress(2, stream=stream, clock=clock) as progress:
        clock.now += 29.9
        progress.on_image(0)

    assert stream.getvalue() == ""


def test_plain_images_of_an_earlier_run_do_not_count_for_the_rate() -> None:
    clock, stream = Clock(), io.StringIO()
    with RunProgress(100, done=90, stream=stream, clock=clock) as progress:
        clock.now += 40
        progress.on_image(0)

    assert stream.getvalue() == "91/100 images, 0 masks, 0.03 images/s, 360 s left\n"


def test_plain_slow_image_gives_one_line() -> None:
    clock, stream = Clock(), io.StringIO()
    with RunProgress(9, stream=stream, clock=clock) as progress:
        clock.now += 300
        progress.on_image(0)
        progress.on_image(0)

    assert len(stream.getvalue().splitlines()) == 1


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
    clock = Clock()
    with RunProgress(1, clock=clock) as progress:
        clock.now += 31
        progress.on_image(0)

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
