"""The command `amg export`, and the options of filters that others share with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import click

from amg_pipeline.progress import RunProgress
from amg_pipeline.selection import Selection
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.uris import redact

Command = Callable[..., Any]

_FORMATS = (
    "coco",
    "sa1b",
    "yolo",
    "label-studio",
    "labelme",
    "cvat",
    "fiftyone",
    "png",
    "parquet-masks",
    "hf-datasets",
)

_FILTERS = (
    click.option("--min-iou", metavar="X", type=float, help="Least predicted IoU of a mask."),
    click.option("--min-stability", metavar="X", type=float, help="Least stability score."),
    click.option("--min-area", metavar="N", type=int, help="Fewest pixels of a mask."),
    click.option(
        "--max-area-fraction",
        metavar="X",
        type=float,
        help="Leave out masks that cover at least this fraction of their image.",
    ),
    click.option(
        "--top-k", metavar="N", type=int, help="The N masks of an image with the best scores."
    ),
    click.option(
        "--images",
        metavar="GLOB",
        multiple=True,
        help="Only images whose id matches; may be repeated.",
    ),
    click.option("--sample", metavar="N", type=int, help="A repeatable random choice of N images."),
)


_REVIEWS = (
    click.option(
        "--reviewed",
        type=click.Choice(["accepted", "rejected", "unrejected"]),
        help="Masks by what people decided in `amg review`; unions that they made are masks too.",
    ),
    click.option(
        "--reviewer",
        "reviewers",
        metavar="NAME",
        multiple=True,
        help="Only this one's decisions count; may be repeated.",
    ),
)


def filter_options(command: Command) -> Command:
    """Give a command the filters; it takes them as `**options`, for `to_selection`."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def review_options(command: Command) -> Command:
    """Give a command the filters by decisions; as `filter_options`."""
    for option in reversed(_REVIEWS):
        command = option(command)
    return command


def to_selection(options: Mapping[str, Any]) -> Selection:
    """Turn the filters that were given into a selection.

    Raises:
        ConfigError: If a value is out of range.
    """
    names = {part.name for part in fields(Selection)}
    return Selection(
        **{name: value for name, value in options.items() if name in names and value is not None}
    )


@click.command(short_help="Write the masks of a run in the format of another tool.")
@click.argument("format", type=click.Choice(_FORMATS), metavar="FORMAT")
@click.argument("output")
@click.argument("dest")
@filter_options
@review_options
@click.option("--label", metavar="NAME", default="object", help="The class of all masks; object.")
@click.option(
    "--as",
    "shape",
    type=click.Choice(["mask", "polygon"]),
    help="How masks are written, where FORMAT has both.",
)
@click.option(
    "--tolerance",
    metavar="PIXELS",
    type=float,
    default=0.5,
    show_default=True,
    help="How far polygons may miss the border; 0 keeps every corner.",
)
@click.option("--image-root", metavar="URL", help="What comes before an image's id in its address.")
@click.option("--with-images", is_flag=True, help="Take the images along (yolo, hf-datasets).")
@click.option("--overwrite", is_flag=True, help="Replace files of the same names in DEST.")
def export(format: str, output: str, dest: str, **options: Any) -> None:  # noqa: A002
    """Write the masks of the run in OUTPUT to DEST as FORMAT.

    FORMAT is one of coco, sa1b, yolo, label-studio, labelme, cvat, fiftyone, png, parquet-masks and
    hf-datasets. DEST is a folder, or a URI prefix of any store; for coco also a .json file, for
    cvat a .zip file. The same masks give the same files.
    """
    # Libraries of geometry and images that no other command needs.
    from amg_pipeline.export.formats import export_run
    from amg_pipeline.export.settings import ExportSettings

    selection = to_selection(options)
    settings = ExportSettings(
        label=options["label"],
        shape=options["shape"],
        tolerance=options["tolerance"],
        image_root=options["image_root"],
        with_images=options["with_images"],
    )
    directory = RunDirectory.open(output)
    plan = directory.require_plan()
    done = directory.committed(plan)
    total = plan.count_images(done)
    if selection.sample is not None:
        total = min(total, selection.sample)
    with RunProgress(total) as progress:
        tally = export_run(
            format,
            output,
            dest,
            selection=selection,
            settings=settings,
            overwrite=options["overwrite"],
            on_image=progress.on_image,
        )
    if len(done) < plan.num_shards:
        click.echo(f"note: the run is not finished, {len(done)} of {plan.num_shards} shards are")
    if plan.config["amg"].get("keep_candidates"):
        click.echo("note: these are candidates; `amg refilter` makes finished masks of them")
    for status, number in sorted(tally.failed.items()):
        click.echo(f"note: {number} images have no masks and were left out: {status}")
    for note, number in sorted(tally.notes.items()):
        if number:
            click.echo(f"note: {number} {note}")
    click.echo(
        f"{tally.images} images, {tally.masks} masks ({tally.left_out} left out by filters); "
        f"{format}: {redact(dest)}"
    )
