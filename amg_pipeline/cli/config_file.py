"""A YAML file of settings on the command line, and single settings that win over it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from amg_pipeline.errors import ConfigError, StorageError, TransientStorageError
from amg_pipeline.storage.object_store import read_uri
from amg_pipeline.storage.uris import absolute_uri, redact


def set_option(
    example: str, *, wins_over: str = "the file"
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the option `--set`; it takes what was given as `overrides`.

    Args:
        example: One setting, for the help.
        wins_over: Where other settings come from, for the help.
    """
    return click.option(
        "--set",
        "overrides",
        metavar="SECTION.KEY=VALUE",
        multiple=True,
        help=f"One setting, e.g. {example}; may be repeated, wins over {wins_over}.",
    )


def read_config(uri: str, argument: str) -> str:
    """Read a YAML file of settings.

    Args:
        uri: Path or URI; `~` is the user's folder.
        argument: What the command line calls it, for the message.

    Raises:
        ConfigError: If nothing is there, or it cannot be read as text.
        TransientStorageError: If its store kept failing.
    """
    try:
        return read_uri(absolute_uri(uri)).decode()
    except TransientStorageError:
        raise
    except FileNotFoundError as error:
        raise ConfigError(
            f"{argument} must name a YAML file. Received: {redact(uri)}, where nothing is"
        ) from error
    except (StorageError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{argument} must name a readable YAML file. Received: {redact(uri)} ({error})"
        ) from error
