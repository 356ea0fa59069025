from __future__ import annotations

from pathlib import Path

import pytest

from amg_pipeline.cli import main


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["train", *arguments])
    return int(ended.value.code or 0)


def test_unknown_settings_are_named_with_the_nearest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "train.yaml"
    config.write_text("{data: {train: [{path: x}]}, output: out, optimization: {epoch: 1}}")
    assert run(str(config)) == 2
    assert "Did you mean optimization.epochs?" in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "none.yaml")) == 2
    assert "none.yaml" in capsys.readouterr().err


def test_missing_data_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(
        f"{{data: {{train: [{{path: {tmp_path / 'nowhere'}}}]}}, output: {tmp_path}}}"
    )
    assert run(str(config)) == 2
    assert "nowhere" in capsys.readouterr().err
