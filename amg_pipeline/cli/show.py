"""The command `amg show`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from amg_pipeline.cli.export import to_selection
from amg_pipeline.errors import ConfigError


@click.command(short_help="Show one image of a run with its masks.")
@click.argument("image_id")
@click.argument("output")
@click.option(
    "--save",
    metavar="PNG",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a PNG in the image's own size, and open no window.",
)
@click.option("--min-iou", metavar="X", type=float, help="Least predicted IoU of a mask.")
@click.option("--min-stability", metavar="X", type=float, help="Least stability score.")
@click.option("--min-area", metavar="N", type=int, help="Fewest pixels of a mask.")
@click.option("--top-k", metavar="N", type=int, help="The N masks with the best scores.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Other colours.")
@click.option("--borders/--no-borders", default=True, help="A thin line around each mask.")
def show(
    image_id: str, output: str, save: Path | None, seed: int, borders: bool, **options: Any
) -> None:
    """Show the image IMAGE_ID of the run in OUTPUT with its masks.

    Opens a window of matplotlib. Without a display, or without matplotlib, a PNG is written to the
    working directory instead.
    """
    from amg_pipeline.report.run_image import open_run_image
    from amg_pipeline.report.show import show_masks

    if save is not None and save.suffix.lower() != ".png":
        raise ConfigError(f"--save must name a .png file. Received: {save}")
    selection = to_selection(options)
    found = open_run_image(output, image_id, selection)
    if found.problem is not None:
        click.echo(f"note: {found.problem}; the masks are on grey")
    facts = f"{image_id}: {len(found.masks)} masks"
    if save is None and _has_window():
        axes = show_masks(found.pixels, found.masks, borders=borders, seed=seed)
        axes.set_title(facts)
        axes.figure.canvas.manager.set_window_title(facts)
        from matplotlib import pyplot

        pyplot.show()
        click.echo(facts)
        return
    path = save or _free_name(image_id)
    found.write_png(path, borders=borders, seed=seed)
    click.echo(f"{facts}; picture: {path}")


def _has_window() -> bool:
    """Tell whether matplotlib is there and can open a window."""
    try:
        from matplotlib import pyplot
        from matplotlib.backends.registry import BackendFilter, backend_registry
    except ImportError:
        return False
    pyplot.close(pyplot.figure())  # resolves which backend it is
    interactive = backend_registry.list_builtin(BackendFilter.INTERACTIVE)
    return pyplot.get_backend().lower() in map(str.lower, interactive)


def _free_name(image_id: str) -> Path:
    """Choose a name in the working directory that nothing has."""
    stem = Path(image_id.rpartition("/")[2]).stem
    stem = re.sub(r"[^\w-]+", "_", stem).strip("_")[:80] or "image"
    path, number = Path(f"{stem}-masks.png"), 1
    while path.exists():
        number += 1
        path = Path(f"{stem}-masks-{number}.png")
    return path
