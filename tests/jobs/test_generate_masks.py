"""The entrypoint is `amg run`: the same words give the same output and exit code."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from amg_pipeline import cli

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "jobs" / "generate_masks.py"


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        # As Ray does for a job with a working directory.
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [[], ["--help"], ["in", "out"], ["a b", "out", "--set", "amg.points_per_side=8"]],
    ids=str,
)
def test_words_are_those_of_amg_run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[Sequence[str] | None] = []
    monkeypatch.setattr(cli, "main", received.append)
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])

    runpy.run_path(str(SCRIPT), run_name="__main__")

    assert received == [["run", *words]]


def test_message_and_exit_code_are_those_of_amg_run() -> None:
    words = ["in", "out", "--set", "amg.pred_iou=0.9"]

    ended = _run(SCRIPT, *words)
    expected = _run("-m", "amg_pipeline.cli", "run", *words)

    assert "pred_iou_thresh" in ended.stderr
    assert ended.returncode == 2
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )


def test_entrypoint_is_a_few_lines() -> None:
    code = [line for line in SCRIPT.read_text(encoding="utf-8").splitlines() if line.strip()]

    assert len(code) <= 10
