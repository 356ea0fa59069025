"""Runs a plan in this process: shard after shard, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import partial
from itertools import count
from typing import Any

from amg_pipeline.attempt_log import AttemptLog
from amg_pipeline.attempts import Failure, ShardTask
from amg_pipeline.errors import ShardError, StorageError, TransientStorageError
from amg_pipeline.outcome import RunOutcome, RunTally
from amg_pipeline.planning import Plan
from amg_pipeline.records import ImageResult, ShardReport
from amg_pipeline.shard_runner import MaskGenerator, ShardRunner, make_mask_generator
from amg_pipeline.work import Work, find_work

OnProgress = Callable[[ImageResult], None]


def run_locally(
    plan: Plan,
    *,
    work: Work | None = None,
    on_image: OnProgress | None = None,
    make_generator: Callable[[Any], MaskGenerator] | None = None,
) -> RunOutcome:
    """Do all shards of a plan that are not committed, and the rows that are to be done again.

    Killed at any instant, nothing is lost but the shard that was running: the next run does it.

    Args:
        plan: What to do.
        work: What is left of it; found out if not given.
        on_image: Called with each image's result.
        make_generator: Loads the model, by default the plan's; called once, and not if everything
            is committed.

    Raises:
        ConfigError: If the backend cannot be used in this process.
        WeightsError: If the weights cannot be loaded.
        StorageError: If the output cannot be read or written.
    """
    directory = plan.run_directory
    tally = RunTally(plan)
    work = work or find_work(plan)
    if work.num_shards:
        make = make_generator or partial(
            make_mask_generator, weights_sha256=plan.stored.weights_sha256
        )
        runner = ShardRunner(
            directory=directory,
            plan=plan.stored,
            metadata=plan.table_metadata,
            generate=make(plan.config),
            images=plan.config.images,
            decode_threads=plan.config.workers.decode_threads,
        )
        # What a row is condemned for that is to be done again, is not to be learned from.
        earlier = directory.read_all_attempts(skip=work.done | work.redo.keys())
        with closing(AttemptLog(directory)) as log:
            for shard in work.shards():
                task = ShardTask.resumed(shard, earlier.pop(shard.shard_id, ()))
                _run_with_attempts(runner, task, on_image, log, tally)
    return tally.conclude()


def _run_with_attempts(
    runner: ShardRunner,
    task: ShardTask,
    on_image: OnProgress | None,
    log: AttemptLog,
    tally: RunTally,
) -> None:
    while not task.is_exhausted:
        try:
            report = _attempt(runner, task, on_image)
        except Exception as error:
            if isinstance(error, StorageError) and not isinstance(error, TransientStorageError):
                # The output is full, forbidden or gone: no other shard would fare better.
                raise
            # A ShardError says all there is to know; anything else is a fault of the program.
            cause = None if isinstance(error, ShardError) else error
            failure = Failure(reason="error", error_type=type(error).__name__, message=str(error))
            log.add(task, failure, cause=cause)
            tally.add_failed_attempt(failure.reason)
        else:
            tally.add_shard(report)
            return
    tally.give_up(task.shard.shard_id)


def _attempt(runner: ShardRunner, task: ShardTask, on_image: OnProgress | None) -> ShardReport:
    row = count()

    def report_news(result: ImageResult) -> None:
        if task.is_news(next(row)) and on_image is not None:
            on_image(result)

    return runner.run(
        task.shard,
        known=task.known,
        is_last_attempt=task.is_last_attempt,
        on_image=report_news,
    )
