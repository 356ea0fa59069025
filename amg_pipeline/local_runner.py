"""Runs a plan in this process: shard after shard, without Ray."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from amg_pipeline.errors import ShardError, StorageError, TransientStorageError
from amg_pipeline.outcome import RunOutcome, RunTally
from amg_pipeline.planning import Plan
from amg_pipeline.records import ImageResult, Shard
from amg_pipeline.shard_runner import MaskGenerator, ShardRunner, make_mask_generator
from amg_pipeline.telemetry import log_event
from amg_pipeline.work import Work, find_work

_LOGGER = logging.getLogger(__name__)
#: Attempts at a shard before it is given up.
MAX_ATTEMPTS = 3

OnProgress = Callable[[ImageResult], None]


def run_locally(
    plan: Plan,
    *,
    work: Work | None = None,
    on_image: OnProgress | None = None,
    make_generator: Callable[[Any], MaskGenerator] = make_mask_generator,
) -> RunOutcome:
    """Do all shards of a plan that are not committed, and the rows that are to be done again.

    Killed at any instant, nothing is lost but the shard that was running: the next run does it.

    Args:
        plan: What to do.
        work: What is left of it; found out if not given.
        on_image: Called with each image's result.
        make_generator: Loads the model; called once, and not if everything is committed.

    Raises:
        ConfigError: If the backend cannot be used in this process.
        WeightsError: If the weights cannot be loaded.
        StorageError: If the output cannot be read or written.
    """
    directory, stored = plan.run_directory, plan.stored
    tally = RunTally(plan)
    work = work or find_work(plan)
    if work.num_shards:
        runner = ShardRunner(
            directory=directory,
            plan=stored,
            metadata=plan.table_metadata,
            generate=make_generator(plan.config),
            images=plan.config.images,
            decode_threads=plan.config.workers.decode_threads,
        )
        for shard in work.shards():
            _run_with_attempts(runner, plan, shard, on_image, tally)
    return tally.conclude()


def _run_with_attempts(
    runner: ShardRunner, plan: Plan, shard: Shard, on_image: OnProgress | None, tally: RunTally
) -> None:
    report_once = None if on_image is None else _ReportOnce(on_image)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        if report_once is not None:
            report_once.begin_attempt()
        try:
            report = runner.run(
                shard, is_last_attempt=attempt == MAX_ATTEMPTS, on_image=report_once
            )
        except TransientStorageError as error:
            _record_attempt(plan, shard, error, tally)
        except StorageError:
            # The output is full, forbidden or gone: no other shard would fare better.
            raise
        except Exception as error:  # noqa: BLE001  # the shard boundary: one shard's fault stays its own
            _record_attempt(plan, shard, error, tally)
        else:
            tally.add_shard(report)
            return
    tally.give_up(shard.shard_id)


class _ReportOnce:
    """Passes each image of a shard on once, however often the shard is tried.

    Images come in row order, so that those of an earlier attempt are the first ones.
    """

    def __init__(self, on_image: OnProgress) -> None:
        self._on_image = on_image
        self._reported = 0
        self._position = 0

    def begin_attempt(self) -> None:
        self._position = 0

    def __call__(self, result: ImageResult) -> None:
        self._position += 1
        if self._position > self._reported:
            self._reported = self._position
            self._on_image(result)


def _record_attempt(plan: Plan, shard: Shard, error: Exception, tally: RunTally) -> None:
    tally.add_failed_attempt("error")
    number = plan.run_directory.write_attempt(
        shard.shard_id, {"error_type": type(error).__name__, "error_message": str(error)}
    )
    # A ShardError says all there is to know; anything else is a fault of the program.
    is_known = isinstance(error, ShardError)
    log_event(
        _LOGGER,
        logging.WARNING,
        f"an attempt at shard {shard.shard_id} failed: {type(error).__name__}: {error}",
        cause=None if is_known else error,
        attempt=number,
    )
