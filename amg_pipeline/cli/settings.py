"""The options of `amg plan` and `amg run`, and the settings that they amount to."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, get_args

import click

from amg_pipeline.cli.config_file import read_config, set_option
from amg_pipeline.config import VARIANTS, RunConfig, load_config
from amg_pipeline.errors import ConfigError
from amg_pipeline.records import ImageStatus

Command = Callable[..., Any]

#: An image that is `ok` would give the same masks again.
_RETRY_STATUSES = tuple(status for status in get_args(ImageStatus) if status != "ok")

#: Which section of the settings each option belongs to, and under which key.
_SETTINGS = {
    "input_uri": ("images", "input"),
    "limit": ("images", "limit"),
    "sample": ("images", "sample"),
    "include": ("images", "include"),
    "exclude": ("images", "exclude"),
    "output_uri": ("output", "uri"),
    "shard_size": ("output", "shard_size"),
    "model": ("model", "variant"),
    "weights": ("model", "weights"),
    "precision": ("model", "precision"),
    "workers": ("workers", "workers"),
    "gpus_per_worker": ("workers", "gpus_per_worker"),
    "address": ("workers", "address"),
}

_OPTIONS = (
    click.argument("input_uri", metavar="INPUT"),
    click.argument("output_uri", metavar="OUTPUT"),
    click.option("--config", metavar="URI", help="YAML file with the sections of the settings."),
    set_option("amg.pred_iou_thresh=0.9"),
    click.option("--model", metavar="NAME", help=f"{', '.join(VARIANTS)}; tiny by default."),
    click.option("--weights", metavar="URI", help="Checkpoint of the model; tiny brings its own."),
    click.option(
        "--precision",
        metavar="NAME",
        help="strict (the reference's masks, by default) or fast (masks may differ).",
    ),
    click.option(
        "--shard-size", metavar="N", type=int, help="Images of one Parquet object and commit."
    ),
    click.option("--limit", metavar="N", type=int, help="Only the first N images."),
    click.option("--sample", metavar="N", type=int, help="A repeatable random choice of N images."),
    click.option(
        "--include",
        metavar="GLOB",
        multiple=True,
        help="Only images whose path in INPUT matches; may be repeated.",
    ),
    click.option(
        "--exclude",
        metavar="GLOB",
        multiple=True,
        help="No images whose path in INPUT matches; may be repeated.",
    ),
    click.option("--workers", metavar="N", type=int, help="Model workers; one per GPU by default."),
    click.option(
        "--gpus-per-worker", metavar="X", type=float, help="GPUs of a worker; may be a fraction."
    ),
    click.option("--address", metavar="ADDRESS", help="Ray cluster to run on."),
    click.option(
        "--extend",
        is_flag=True,
        help="List INPUT again and add images that are new since; those of OUTPUT stay.",
    ),
    click.option(
        "--retry-status",
        metavar="STATUS,...",
        multiple=True,
        help="Do images with these statuses again, e.g. fetch_error,timeout; keep the others.",
    ),
    click.option(
        "--force",
        is_flag=True,
        help="Move a run with other settings from OUTPUT to OUTPUT/_old/ and start afresh.",
    ),
)


def run_options(command: Command) -> Command:
    """Give a command the options of a run; it takes them as `**options`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def resolve_options(options: Mapping[str, Any]) -> RunConfig:
    """Turn the options that were given into settings.

    Raises:
        ConfigError: If the YAML file cannot be read, or a setting is unknown or out of range.
        TransientStorageError: If the store with the YAML file kept failing.
    """
    settings: dict[str, dict[str, Any]] = {}
    for name, (section, key) in _SETTINGS.items():
        if options[name] not in (None, ()):
            settings.setdefault(section, {})[key] = options[name]
    config = options["config"]
    return load_config(
        read_config(config, "--config") if config else None,
        overrides=options["overrides"],
        settings=settings,
    )


def retry_statuses(options: Mapping[str, Any]) -> frozenset[str]:
    """Read which statuses of finished images are to be tried again.

    Raises:
        ConfigError: If one is not the status of a failure.
    """
    names = [name.strip() for text in options["retry_status"] for name in text.split(",")]
    for name in names:
        if name not in _RETRY_STATUSES:
            near = difflib.get_close_matches(name, _RETRY_STATUSES, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"--retry-status must name some of {', '.join(_RETRY_STATUSES)}. "
                f"Received: {name!r}{hint}"
            )
    return frozenset(names)
