"""The command `amg report`."""

from __future__ import annotations

from typing import Any

import click

from amg_pipeline.cli.export import filter_options, to_selection
from amg_pipeline.progress import RunProgress
from amg_pipeline.storage.run_directory import RunDirectory


@click.command(short_help="Write a page with a run's statistics and photos with their masks.")
@click.argument("output")
@click.argument("dest")
@click.option("--title", metavar="TEXT", help="Heading of the page.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    default=24,
    show_default=True,
    help="The most photos in each section of the gallery.",
)
@filter_options
def report(output: str, dest: str, title: str | None, limit: int, **options: Any) -> None:
    """Write a page about the run in OUTPUT to DEST: totals, distributions, failures, a gallery.

    DEST is a folder, or a URI prefix of any store; an earlier page there is replaced. The page
    opens from a disk or from a store as static files, and asks nothing of the network. The run may
    still be going.
    """
    # Geometry and images, which no other command needs.
    from amg_pipeline.report.run_report import write_run_report

    selection = to_selection(options)
    directory = RunDirectory.open(output)
    plan = directory.require_plan()
    total = plan.count_images(directory.committed(plan))
    if selection.sample is not None:
        total = min(total, selection.sample)
    with RunProgress(total) as progress:
        written = write_run_report(
            output,
            dest,
            title=title,
            limit=limit,
            selection=selection,
            on_image=progress.on_image,
        )
    if written.shards_done < written.num_shards:
        click.echo(
            f"note: the run is not finished, {written.shards_done} of {written.num_shards} "
            "shards are"
        )
    if written.not_shown:
        click.echo(
            f"note: {written.not_shown} of {written.shown} images in the gallery cannot be shown "
            "as they are; their cards say why"
        )
    click.echo(
        f"{written.images} images, {written.masks} masks ({written.left_out} left out by filters), "
        f"{written.failed} failed images; page: {written.page}"
    )
