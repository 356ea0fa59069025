"""How far a run is, told from its output alone, also while it goes on and from another machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amg_pipeline.attempts import Failure, why_given_up
from amg_pipeline.recent_rate import recent_rate
from amg_pipeline.storage.row_counts import RowCounts
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan

#: Shards that tell how long one takes: few enough to read at any scale.
_RECENT_SHARDS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """How far a run is.

    Attributes:
        plan: The output's plan.
        shards_done: Number of shards that are committed.
        counts: Rows of the committed shards.
        failed_attempts: Number of failed attempts at uncommitted shards, by reason.
        given_up: Why each shard was given up whose attempts are used up, by its number.
        images_per_second: Recent rate; None if nothing was committed lately.
    """

    plan: StoredPlan
    shards_done: int
    counts: RowCounts
    failed_attempts: Mapping[str, int]
    given_up: Mapping[int, Failure]
    images_per_second: float | None

    @property
    def images_done(self) -> int:
        """Number of images that have a row."""
        return sum(self.counts.images.values())

    @property
    def seconds_left(self) -> float | None:
        """Time that the rest takes at the recent rate; None where that is unknown."""
        left = self.plan.num_images - self.images_done
        if not left:
            return 0.0
        return left / self.images_per_second if self.images_per_second else None

    def to_json(self) -> dict[str, Any]:
        """Give the status as plain values."""
        plan, done = self.plan, self.shards_done
        return {
            "shards": {
                "total": plan.num_shards,
                "done": done,
                "to_do": plan.num_shards - done,
                "given_up": {str(number): str(why) for number, why in self.given_up.items()},
            },
            "images": {
                "total": plan.num_images,
                "done": self.images_done,
                "to_do": plan.num_images - self.images_done,
                "by_status": dict(sorted(self.counts.images.items())),
                "unsettled": self.counts.unsettled,
            },
            "masks": self.counts.masks,
            "failed_attempts": dict(sorted(self.failed_attempts.items())),
            "images_per_second": self.images_per_second,
            "seconds_left": self.seconds_left,
            "fingerprint": plan.fingerprint,
        }


def read_status(directory: RunDirectory, *, now: Callable[[], float] = time.time) -> RunStatus:
    """Read how far a run is.

    Args:
        directory: The output.
        now: Gives seconds since 1970.

    Raises:
        ConfigError: If this is not the output of a run.
        StorageError: If it cannot be read, or a shard is damaged.
    """
    plan = directory.require_plan()
    times = directory.commit_times(plan)
    attempts = directory.read_all_attempts(skip=times)
    reasons: Counter[str] = Counter(
        reason
        for records in attempts.values()
        for record in records
        if (reason := Failure.from_record(record).reason) != "given_up"
    )
    return RunStatus(
        plan=plan,
        shards_done=len(times),
        counts=directory.count_rows(plan),
        failed_attempts=dict(reasons),
        given_up={
            number: why
            for number, records in sorted(attempts.items())
            if (why := why_given_up(records)) is not None
        },
        images_per_second=_rate(directory, plan, times, now()),
    )


def _rate(
    directory: RunDirectory, plan: StoredPlan, times: Mapping[int, float | None], now: float
) -> float | None:
    """Give the recent rate in images per second, from when shards were committed."""
    images = {n: part.images_of(n) for part in plan.parts for n in part.shard_ids}
    known = sorted((time, n) for n, time in times.items() if time is not None)
    records = directory.read_stats(n for _, n in known[-_RECENT_SHARDS:])
    slowest = max((record["elapsed_seconds"] for record in records), default=0.0)
    return recent_rate([(time, images[n]) for time, n in known], shard_seconds=slowest, now=now)
