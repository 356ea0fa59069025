"""The command `amg train`."""

from __future__ import annotations

import os
import sys

import click

from amg_pipeline.cli.config_file import read_config, set_option
from amg_pipeline.errors import ConfigError
from amg_pipeline.training.settings import load_train_config


@click.command(short_help="Fine-tune a model on labelled images.")
@click.argument("config", metavar="CONFIG")
@set_option("optimization.epochs=5")
def train(config: str, overrides: tuple[str, ...]) -> None:
    """Train what the YAML file CONFIG says; see docs/training.md.

    The output folder gets the weights, for `amg run --weights`, the log and its curves. The same
    command again goes on where a killed one was.
    """
    settings = load_train_config(read_config(config, "CONFIG"), overrides=overrides)
    os.environ["KERAS_BACKEND"] = settings.model.backend
    try:
        from amg_pipeline.training.runs import run_training
    except ImportError as error:
        raise ConfigError(
            f"model.backend must be installed. Received: {settings.model.backend} ({error}); "
            f"try pip install 'amg_pipeline[{settings.model.backend}]'"
        ) from error

    result = run_training(settings, sys.stderr)
    weights = result.pop("weights")
    click.echo(", ".join(f"{name} {value:.4f}" for name, value in result.items()))
    click.echo(f"weights: {weights}")
