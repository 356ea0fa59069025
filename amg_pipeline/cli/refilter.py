"""The command `amg refilter`."""

from __future__ import annotations

from typing import Any

import click

from amg_pipeline.cli.config_file import set_option
from amg_pipeline.outcome import RunTally
from amg_pipeline.progress import RunProgress
from amg_pipeline.storage.uris import redact


@click.command(short_help="A stored run with tighter settings, without the model.")
@click.argument("output")
@click.argument("new")
@set_option("amg.pred_iou_thresh=0.92", wins_over="those of OUTPUT")
@click.option("--fill-holes", metavar="N", type=int, help="Fill holes of at most N pixels.")
@click.option("--largest-component", is_flag=True, help="Keep only the largest part of each mask.")
@click.option("--smooth", metavar="N", type=int, help="Smooth edges by a disc of radius N pixels.")
@click.option(
    "--max-iou",
    metavar="X",
    type=float,
    help="Of two masks with a greater IoU, drop the lower scored one.",
)
@click.option(
    "--max-containment",
    metavar="X",
    type=float,
    help="The same for the part of the smaller mask that the other covers.",
)
@click.option("--disjoint", is_flag=True, help="Give each pixel to one mask, the smallest there.")
def refilter(output: str, new: str, overrides: tuple[str, ...], **options: Any) -> None:
    """Write to NEW what a run with other settings gives, from the masks of the run in OUTPUT.

    NEW is byte for byte the output of a fresh run with the settings of --set; what a fresh run
    could give more is refused, with the reason. The other options change masks as no run does. The
    same command again resumes.
    """
    from amg_pipeline.refilter.cleaning import CleaningSettings
    from amg_pipeline.refilter.new_run import plan_refilter, run_refilter

    given = {name: value for name, value in options.items() if value is not None}
    work = plan_refilter(output, new, overrides=overrides, cleaning=CleaningSettings(**given))
    plan = work.plan
    with RunProgress(plan.num_images) as progress:

        def on_shard(images: int, masks: int) -> None:
            for number in range(images):
                progress.on_image(masks if number == 0 else 0)

        done = run_refilter(work, on_shard=on_shard)
    if len(done) < plan.num_shards:
        click.echo(
            f"note: OUTPUT is not finished; {len(done)} of {plan.num_shards} shards are done in NEW"
        )
    else:
        counts = RunTally(plan).conclude().counts
        click.echo(f"{sum(counts.images.values())} images, {counts.masks} masks")
    click.echo(f"output: {redact(plan.run_directory.uri)}")
