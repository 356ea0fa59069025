"""The entrypoint is `amg run`: the same words give the same output and exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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
    ("words", "code"),
    [
        pytest.param(["--help"], 0, id="help"),
        pytest.param([], 2, id="no input"),
        pytest.param(["in", "out", "--set", "amg.pred_iou=0.9"], 2, id="unknown setting"),
        pytest.param(["in", "out", "--model", "vit_h"], 2, id="weights missing"),
    ],
)
def test_same_words_end_like_amg_run(words: list[str], code: int) -> None:
    ended = _run(SCRIPT, *words)
    expected = _run("-m", "amg_pipeline.cli", "run", *words)

    assert (ended.returncode, ended.stdout, ended.stderr) == (
        expected.returncode,
        expected.stdout,
        expected.stderr,
    )
    assert ended.returncode == code


def test_entrypoint_is_a_few_lines() -> None:
    code = [line for line in SCRIPT.read_text(encoding="utf-8").splitlines() if line.strip()]

    assert len(code) <= 10
