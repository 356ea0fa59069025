"""From options to settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from amg_pipeline.cli import settings
from amg_pipeline.cli.settings import resolve_options, run_options
from amg_pipeline.config import RunConfig, load_config


def resolve(*arguments: object) -> RunConfig:
    """Give the settings that a command line amounts to."""
    found: list[RunConfig] = []

    @click.command()
    @run_options
    def command(force: bool, **options: Any) -> None:
        found.append(resolve_options(options))

    words = ["in", "out", *map(str, arguments)]
    CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    return found[0]


def test_no_options_give_the_defaults() -> None:
    expected = load_config(settings={"images": {"input": "in"}, "output": {"uri": "out"}})

    assert resolve() == expected


@pytest.mark.parametrize(
    ("arguments", "section", "key", "value"),
    [
        (["--model", "vit_b"], "model", "variant", "vit_b"),
        (["--weights", "s3://b/w.pth"], "model", "weights", "s3://b/w.pth"),
        (["--precision", "fast"], "model", "precision", "fast"),
        (["--shard-size", 7], "output", "shard_size", 7),
        (["--limit", 5], "images", "limit", 5),
        (["--sample", 5], "images", "sample", 5),
        (["--include", "*.png"], "images", "include", ("*.png",)),
        (["--include", "a", "--include", "b"], "images", "include", ("a", "b")),
        (["--exclude", "a", "--exclude", "b"], "images", "exclude", ("a", "b")),
        (["--workers", 3], "workers", "workers", 3),
        (["--gpus-per-worker", 0.25], "workers", "gpus_per_worker", 0.25),
        (["--gpus-per-worker", 0], "workers", "gpus_per_worker", 0.0),
        (["--address", "ray://h:1"], "workers", "address", "ray://h:1"),
        (["--set", "amg.min_area=3"], "amg", "min_area", 3),
        (["--set", "images.exif_orientation=false"], "images", "exif_orientation", False),
        (["--set", "amg.settings=sa1b"], "amg", "crop_n_layers", 2),
    ],
)
def test_option_sets_its_setting(
    arguments: list[object], section: str, key: str, value: object
) -> None:
    assert getattr(getattr(resolve(*arguments), section), key) == value


def test_every_option_of_the_table_exists() -> None:
    names = {parameter.name for parameter in click.command()(run_options(lambda: None)).params}

    assert settings._SETTINGS.keys() <= names


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], 9),
        (["--shard-size", 10], 10),
        (["--shard-size", 10, "--set", "output.shard_size=11"], 11),
        (["--set", "output.shard_size=11", "--set", "output.shard_size=12"], 12),
    ],
    ids=["file", "option", "set", "last-set"],
)
def test_nearer_value_wins_over_the_file(
    tmp_path: Path, arguments: list[object], expected: int
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("output: {shard_size: 9}\nimages: {limit: 4}\n")

    config = resolve("--config", file, *arguments)

    assert config.output.shard_size == expected
    assert config.images.limit == 4


def test_config_may_be_a_uri(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("output: {shard_size: 9}")

    assert resolve("--config", f"file://{tmp_path}/run.yaml").output.shard_size == 9
