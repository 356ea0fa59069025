"""Files of settings that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from amg_pipeline.cli import config_file
from amg_pipeline.cli.config_file import read_config
from amg_pipeline.errors import ConfigError, TransientStorageError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(lambda path: None, "where nothing is", id="missing"),
        pytest.param(lambda path: path.mkdir(), "Is a directory", id="folder"),
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe"), "codec", id="no-text"),
    ],
)
def test_unreadable_file_is_named(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    file = tmp_path / "run.yaml"
    make(file)

    with pytest.raises(ConfigError, match=r"--config must name a .*YAML file") as caught:
        read_config(str(file), "--config")

    assert str(file) in str(caught.value)
    assert message in str(caught.value)


def test_a_users_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.yaml").write_text("amg: {}")

    assert read_config("~/run.yaml", "--config") == "amg: {}"


def test_store_that_does_not_answer_is_no_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(uri: str) -> bytes:
        raise TransientStorageError("reset")

    monkeypatch.setattr(config_file, "read_uri", fail)

    with pytest.raises(TransientStorageError):
        read_config("s3://b/run.yaml", "--config")
