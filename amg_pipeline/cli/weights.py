"""The commands about model weights: list, inspect, convert, fetch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from amg_pipeline.assets import packaged_weights
from amg_pipeline.config import VARIANTS
from amg_pipeline.progress import DownloadProgress
from amg_pipeline.sam.weights import OFFICIAL_WEIGHTS, convert, fetch, inspect


@click.group()
def weights() -> None:
    """Look at, convert and fetch model weights."""


@weights.command("list")
def list_weights() -> None:
    """Name the variants and where their weights come from."""
    for variant in VARIANTS:
        official = OFFICIAL_WEIGHTS.get(variant)
        if official is not None:
            place = f"{official.size_bytes / 2**20:.0f} MiB at {official.url}"
        elif packaged_weights(variant):
            place = "in the package"
        else:
            place = "no weights"
        click.echo(f"{variant:6} {place}")


@weights.command("inspect")
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_weights(source: str, as_json: bool) -> None:
    """Describe SOURCE (a variant, file or URI) without making a model."""
    description = asdict(inspect(source))
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    for name, value in description.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{key}={item}" for key, item in value.items())
        click.echo(f"{name:15}{shown if shown not in ('', None) else 'none'}")


@weights.command("convert")
@click.argument("source")
@click.argument("destination")
def convert_weights(source: str, destination: str) -> None:
    """Bring SOURCE into the format that DESTINATION's ending says.

    Endings: .safetensors, .pth, .keras, .weights.h5.
    """
    convert(source, destination)
    click.echo(destination)


@weights.command("fetch")
@click.argument("variant")
@click.option(
    "--cache-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to keep the file; the user's cache folder by default.",
)
def fetch_weights(variant: str, cache_dir: Path | None) -> None:
    """Download the published weights of VARIANT; an interrupted download goes on."""
    with DownloadProgress(variant) as progress:
        path = fetch(variant, cache_dir, progress=progress.on_bytes)
    click.echo(path)
