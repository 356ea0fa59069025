"""The commands about runs: demo, plan, run, status, verify."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from amg_pipeline import __version__
from amg_pipeline.assets import PHOTOS_FOLDER
from amg_pipeline.cli.settings import resolve_options, retry_statuses, run_options
from amg_pipeline.config import load_config
from amg_pipeline.errors import JobIncompleteError, StorageError
from amg_pipeline.local_runner import run_locally
from amg_pipeline.outcome import RunOutcome
from amg_pipeline.planning import Plan, make_plan
from amg_pipeline.progress import RunProgress
from amg_pipeline.run_status import RunStatus, read_status
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.status_rows import read_failed_rows
from amg_pipeline.storage.uris import redact
from amg_pipeline.work import Work, find_work

#: Shards that one line names.
_MOST_NAMED = 20


@click.command(short_help="List and shard the images; say how much is done and to do.")
@run_options
@click.option("--dry-run", is_flag=True, help="List and count, but write nothing.")
def plan(force: bool, extend: bool, dry_run: bool, **options: Any) -> None:
    """List and shard the images of INPUT; print images, bytes, shards, done and to do.

    INPUT is a folder, a glob in quotes or a URI prefix, of images, tars or Parquet files with
    images; one such file; or a manifest (.csv, .jsonl or .parquet with a column uri). OUTPUT is a
    folder or URI prefix; the plan is stored in it, and `amg run` with the same settings takes it
    up.
    """
    statuses = retry_statuses(options)
    made = make_plan(
        resolve_options(options),
        package_version=__version__,
        force=force,
        extend=extend,
        dry_run=dry_run,
    )
    _print_work(find_work(made, retry_statuses=statuses))


@click.command(short_help="Find the masks of all images; the same command again resumes.")
@run_options
@click.option("--local", is_flag=True, help="Run in this process, without Ray.")
def run(force: bool, extend: bool, local: bool, **options: Any) -> None:
    """Plan if needed, then do what is not committed. The same command again resumes.

    INPUT is a folder, a glob in quotes or a URI prefix, of images, tars or Parquet files with
    images; one such file; or a manifest (.csv, .jsonl or .parquet with a column uri). OUTPUT is a
    folder or URI prefix; the masks are in OUTPUT/masks/*.parquet.
    """
    statuses = retry_statuses(options)
    made = make_plan(
        resolve_options(options), package_version=__version__, force=force, extend=extend
    )
    _finish(made, _run(find_work(made, retry_statuses=statuses), local=local))


@click.command(short_help="Say how far a run is.")
@click.argument("output")
@click.option("--failed", is_flag=True, help="Also name every image that failed, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def status(output: str, failed: bool, as_json: bool) -> None:
    """Say how far the run in OUTPUT is: shards and images done, failed and to do, rate, time left.

    Works from OUTPUT alone, also while the run goes on elsewhere.
    """
    found = read_status(RunDirectory.open(output))
    failures = read_failed_rows(load_masks(output)) if failed else iter(())
    if as_json:
        listed = {"failed_images": [asdict(row) for row in failures]} if failed else {}
        click.echo(json.dumps({**found.to_json(), **listed}))
        return
    _print_status(found)
    for row in failures:
        why = " ".join(f"{row.error_type}: {row.error_message}".split())
        click.echo(f"{row.status}: {row.image_id}: {why}")


def _print_status(found: RunStatus) -> None:
    counts, plan = found.counts, found.plan
    by_status = ", ".join(f"{n} {name}" for name, n in sorted(counts.images.items())) or "none"
    click.echo(f"shards  {found.shards_done} of {plan.num_shards} done")
    click.echo(f"images  {found.images_done} of {plan.num_images} done ({by_status})")
    click.echo(f"masks   {counts.masks}")
    if found.failed_attempts:
        reasons = ", ".join(f"{n} {name}" for name, n in sorted(found.failed_attempts.items()))
        click.echo(f"failed  {reasons} (attempts at shards that are not done)")
    for number, why in list(found.given_up.items())[:_MOST_NAMED]:
        click.echo(f"given up: shard {number}: {why}")
    if found.images_per_second and found.seconds_left:
        click.echo(
            f"rate    {found.images_per_second:.2f} images/s, {found.seconds_left:.0f} s left"
        )


@click.command(short_help="Read back every committed shard and check it.")
@click.argument("output")
def verify(output: str) -> None:
    """Read back every committed shard of OUTPUT; exit 1 if anything is not as it ought to be."""
    directory = RunDirectory.open(output)
    stored = directory.require_plan()
    problems = 0
    for problem in directory.verify(stored):
        problems += 1
        click.echo(f"{problem.key}: {problem.message}")
    done = _count(len(directory.committed(stored)), "shard")
    if problems:
        raise StorageError(
            f"{_count(problems, 'problem')} in {done} of {redact(output)}. Remove the files that "
            "are named and give the same `amg run` again: it makes their shards anew"
        )
    click.echo(f"{done} of {stored.num_shards} committed and sound")


@click.command(short_help="Masks of the sample photos, and a page to look at.")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path), default="amg-demo")
@click.option("--force", is_flag=True, help="Start afresh where another version left a demo.")
def demo(out: Path, force: bool) -> None:
    """Turn the sample photos into masks and a page in OUT, with the packaged model.

    OUT is ./amg-demo by default. Nothing is downloaded, and no GPU is needed.
    """
    from amg_pipeline.report.run_report import write_run_report

    run_uri = str(out / "run")
    settings: dict[str, dict[str, Any]] = {
        "images": {"input": str(PHOTOS_FOLDER)},
        # Small shards, so that a demo that is stopped has something to resume.
        "output": {"uri": run_uri, "shard_size": 2},
    }
    made = make_plan(load_config(settings=settings), package_version=__version__, force=force)
    outcome = _run(find_work(made))
    report = write_run_report(run_uri, str(out / "report"), title="Masks of the sample photos")
    click.echo(f"Parquet: {out / 'run' / 'masks'}")
    click.echo(f"page:    {Path(report.page).as_uri()}")
    _finish(made, outcome)


def _run(work: Work, *, local: bool = False) -> RunOutcome:
    _print_work(work)
    made = work.plan
    with RunProgress(made.num_images, done=work.num_images_done) as progress:
        if local:
            return run_locally(
                made, work=work, on_image=lambda done: progress.on_image(len(done.masks))
            )
        # Ray takes seconds to import.
        from amg_pipeline.distributed.cluster import connected
        from amg_pipeline.distributed.driver import run_distributed

        with connected(made.config.workers):
            return run_distributed(made, work=work, on_image=progress.on_image)


def _print_work(work: Work) -> None:
    """Print what there is to do."""
    made = work.plan
    again = f", of which {_count(work.num_rows_again, 'row')} again" if work.redo else ""
    click.echo(
        f"{_count(made.num_images, 'image')}, {made.num_bytes / 2**20:.1f} MiB, "
        f"{_count(made.num_shards, 'shard')}: {len(work.done)} done, "
        f"{work.num_shards} to do{again} (fingerprint {made.fingerprint[:8]})"
    )


def _finish(made: Plan, outcome: RunOutcome) -> None:
    """Print the last line, or raise with it if another run could do better."""
    counts = outcome.counts
    failures = [f"{n} {name}" for name, n in sorted(counts.images.items()) if name != "ok"]
    if outcome.given_up:
        given_up = _count(len(outcome.given_up), "shard")
        failures.append(
            f"{given_up} given up (number {_some(outcome.given_up)}; `amg status OUTPUT` says why)"
        )
    if gone := [n for n in outcome.missing if n not in outcome.given_up]:
        failures.append(f"shards not in OUTPUT, which may have been removed: {_some(gone)}")
    line = (
        f"{_count(sum(counts.images.values()), 'image')}, {_count(counts.masks, 'mask')}, "
        f"{', '.join(failures) or 'no failures'}; output: {redact(made.run_directory.uri)}"
    )
    if not outcome.is_settled:
        raise JobIncompleteError(line)
    click.echo(line)


def _some(numbers: Sequence[int]) -> str:
    more = len(numbers) - _MOST_NAMED
    named = ", ".join(map(str, numbers[:_MOST_NAMED]))
    return f"{named} and {more} more" if more > 0 else named


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
