"""The commands about runs: demo, plan, run, status, verify, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from amg_pipeline import __version__
from amg_pipeline.assets import PHOTOS_FOLDER
from amg_pipeline.cli.settings import resolve_options, run_options
from amg_pipeline.config import load_config
from amg_pipeline.errors import ConfigError, JobIncompleteError, StorageError
from amg_pipeline.local_runner import RunOutcome, run_locally
from amg_pipeline.planning import Plan, make_plan
from amg_pipeline.progress import RunProgress
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.tally import count_rows


@click.command()
@run_options
@click.option("--dry-run", is_flag=True, help="List and count, but write nothing.")
def plan(force: bool, dry_run: bool, **options: Any) -> None:
    """List and shard INPUT; print images, bytes, shards, done and to do."""
    made = make_plan(
        resolve_options(options), package_version=__version__, force=force, dry_run=dry_run
    )
    _print_plan(made)


@click.command()
@run_options
@click.option("--local", is_flag=True, help="In this process, without Ray.")
def run(force: bool, local: bool, **options: Any) -> None:
    """Plan if needed, then do what is not committed. The same command again resumes."""
    config = resolve_options(options)
    if not local:
        raise ConfigError(
            "This version runs on one machine only: add --local. "
            "Received: a run without --local, which is to use Ray"
        )
    made = make_plan(config, package_version=__version__, force=force)
    _finish(made, _run(made))


@click.command()
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(output: str, as_json: bool) -> None:
    """Say how far the run in OUTPUT is: shards and images done, failed and to do, and masks."""
    directory = RunDirectory.open(output)
    stored = directory.require_plan()
    done = len(directory.committed(stored))
    counts = count_rows(load_masks(output))
    rows = sum(counts.images.values())
    if as_json:
        shards = {"total": stored.num_shards, "done": done, "to_do": stored.num_shards - done}
        images = {
            "total": stored.num_images,
            "done": rows,
            "to_do": stored.num_images - rows,
            "by_status": dict(sorted(counts.images.items())),
            "unsettled": counts.unsettled,
        }
        click.echo(
            json.dumps(
                {
                    "shards": shards,
                    "images": images,
                    "masks": counts.masks,
                    "fingerprint": stored.fingerprint,
                }
            )
        )
        return
    by_status = ", ".join(f"{n} {name}" for name, n in sorted(counts.images.items())) or "none"
    click.echo(f"shards  {done} of {stored.num_shards} done")
    click.echo(f"images  {rows} of {stored.num_images} done ({by_status})")
    click.echo(f"masks   {counts.masks}")


@click.command()
@click.argument("output")
def verify(output: str) -> None:
    """Read back every committed shard of OUTPUT; exit 1 if anything is not as it ought to be."""
    directory = RunDirectory.open(output)
    stored = directory.require_plan()
    problems = 0
    for problem in directory.verify(stored):
        problems += 1
        click.echo(f"{problem.key}: {problem.message}")
    done = len(directory.committed(stored))
    if problems:
        raise StorageError(f"{problems} problems in {done} shards of {output}")
    click.echo(f"{done} of {stored.num_shards} shards are committed, and all of them are sound")


@click.command()
@click.argument("output")
@click.argument("dest", type=click.Path(file_okay=False, path_type=Path))
@click.option("--limit", type=click.IntRange(min=0), default=100, help="The most photos to show.")
def report(output: str, dest: Path, limit: int) -> None:
    """Write a page to DEST with the totals of OUTPUT and its photos with their masks."""
    from amg_pipeline.report.run_report import write_run_report

    click.echo(write_run_report(output, dest, title=f"Masks of {output}", limit=limit))


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path), default="amg-demo")
def demo(out: Path) -> None:
    """Turn the sample photos into masks and a page in OUT, with the packaged model."""
    from amg_pipeline.report.run_report import write_run_report

    run_uri = str(out / "run")
    settings: dict[str, dict[str, Any]] = {
        "images": {"input": str(PHOTOS_FOLDER)},
        # Small shards, so that a demo that is stopped has something to resume.
        "output": {"uri": run_uri, "shard_size": 2},
    }
    made = make_plan(load_config(settings=settings), package_version=__version__)
    outcome = _run(made)
    page = write_run_report(run_uri, out / "report", title="Masks of the sample photos")
    click.echo(f"Parquet: {out / 'run' / 'masks'}")
    click.echo(f"page:    {page.resolve().as_uri()}")
    _finish(made, outcome)


def _run(made: Plan) -> RunOutcome:
    done = _print_plan(made)
    images_done = min(done * made.config.output.shard_size, made.num_images)
    with RunProgress(made.num_images, done=images_done) as progress:
        return run_locally(made, on_image=progress.on_image)


def _print_plan(made: Plan) -> int:
    """Print what there is to do, and return how many shards are done."""
    done = len(made.run_directory.committed(made.stored))
    click.echo(
        f"{made.num_images} images, {made.num_bytes / 2**20:.1f} MiB, {made.num_shards} shards: "
        f"{done} done, {made.num_shards - done} to do (fingerprint {made.fingerprint[:8]})"
    )
    return done


def _finish(made: Plan, outcome: RunOutcome) -> None:
    """Print the last line, or raise with it if another run could do better."""
    counts = outcome.counts
    failures = [f"{n} {name}" for name, n in sorted(counts.images.items()) if name != "ok"]
    if outcome.given_up:
        failures.append(f"shards given up: {', '.join(map(str, outcome.given_up))}")
    line = (
        f"{sum(counts.images.values())} images, {counts.masks} masks, "
        f"{', '.join(failures) or 'no failures'}; output: {made.run_directory.uri}"
    )
    if not outcome.is_settled:
        raise JobIncompleteError(line)
    click.echo(line)
