"""The command `amg train`."""

from __future__ import annotations

import os
import sys

import click

from amg_pipeline.errors import ConfigError, StorageError, TransientStorageError
from amg_pipeline.storage.object_store import read_uri
from amg_pipeline.storage.uris import redact
from amg_pipeline.training.settings import load_train_config


@click.command(short_help="Fine-tune a model on labelled images.")
@click.argument("config", metavar="CONFIG")
@click.option(
    "--set",
    "overrides",
    metavar="SECTION.KEY=VALUE",
    multiple=True,
    help="One setting, e.g. optimization.epochs=5; may be repeated, wins over the file.",
)
def train(config: str, overrides: tuple[str, ...]) -> None:
    """Train what the YAML file CONFIG says; see docs/training.md.

    The output folder gets the weights, for `amg run --weights`, the log and its curves. The same
    command again goes on where a killed one was.
    """
    settings = load_train_config(_read(config), overrides=overrides)
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


def _read(uri: str) -> str:
    try:
        return read_uri(uri).decode()
    except TransientStorageError:
        raise
    except (FileNotFoundError, StorageError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"CONFIG must name a readable YAML file. Received: {redact(uri)} ({error})"
        ) from error
