from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from amg_pipeline.training.settings import load_train_config

JOBS = Path(__file__).parents[2] / "jobs"


def test_the_job_takes_what_the_command_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "--help"])
    runpy.run_path(str(JOBS / "train.py"), run_name="__main__")
    assert "amg train" in capsys.readouterr().out


def test_the_settings_to_start_from_are_valid() -> None:
    config = load_train_config((JOBS / "train.yaml").read_text())
    assert config.freezing.is_encoder_fixed
