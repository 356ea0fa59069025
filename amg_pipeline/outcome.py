"""What a run came to: counted while it goes on, told and recorded when it ends."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from amg_pipeline.attempts import why_given_up
from amg_pipeline.planning import Plan
from amg_pipeline.records import ShardReport
from amg_pipeline.storage.row_counts import RowCounts

_SECONDS_PER_HOUR = 3600.0
_PERCENTILES = (50, 95, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run ended.

    Attributes:
        counts: Rows and masks of the whole output, earlier runs' included.
        missing: Numbers of the shards that are not in the output.
        given_up: Those of them whose attempts were used up.
        elapsed_seconds: Wall-clock time of this run.
        new_images: Images that this run did.
    """

    counts: RowCounts
    missing: tuple[int, ...]
    given_up: tuple[int, ...]
    elapsed_seconds: float
    new_images: int

    @property
    def is_complete(self) -> bool:
        """Whether every shard is committed."""
        return not self.missing

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left that another run could do better."""
        return self.is_complete and not self.counts.unsettled


class RunTally:
    """Counts what one run does.

    Args:
        plan: What the run does.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._started = time.perf_counter()
        self._new_images = 0
        self._given_up: set[int] = set()
        self._attempts_failed: Counter[str] = Counter()
        self._stage_seconds: Counter[str] = Counter()
        self._seconds_per_image: list[float] = []

    def add_shard(self, report: ShardReport) -> None:
        """Count a shard that was committed."""
        images = sum(report.images.values()) - report.kept
        self._new_images += images
        self._stage_seconds.update(report.stage_seconds)
        self._seconds_per_image.append(report.elapsed_seconds / max(images, 1))

    def add_failed_attempt(self, reason: str) -> None:
        """Count an attempt at a shard that failed."""
        self._attempts_failed[reason] += 1

    def give_up(self, shard_id: int) -> None:
        """Take note that a shard's attempts are used up."""
        self._given_up.add(shard_id)

    def conclude(self) -> RunOutcome:
        """Count the output's rows, write `summary.json`, and `_SUCCESS` if nothing is missing.

        What is missing, the output says: a report of a commit may be of another machine's disk, and
        objects may have been removed since.

        Raises:
            StorageError: If the output cannot be read or written.
        """
        directory = self._plan.run_directory
        committed = directory.committed(self._plan.stored)
        missing = [n for n in range(self._plan.num_shards) if n not in committed]
        outcome = RunOutcome(
            counts=directory.count_rows(self._plan.stored),
            missing=tuple(missing),
            given_up=tuple(n for n in missing if n in self._given_up),
            elapsed_seconds=time.perf_counter() - self._started,
            new_images=self._new_images,
        )
        # Another driver may have added images, or moved this run away.
        now, then = directory.read_plan(), self._plan.stored
        is_last = now is not None and (now.fingerprint, now.edition) == (
            then.fingerprint,
            then.edition,
        )
        directory.write_summary(self._summary(outcome), is_complete=outcome.is_complete and is_last)
        return outcome

    def _summary(self, outcome: RunOutcome) -> dict[str, Any]:
        plan = self._plan
        return {
            "fingerprint": plan.fingerprint,
            "images": dict(outcome.counts.images),
            "masks": outcome.counts.masks,
            "unsettled": outcome.counts.unsettled,
            "shards": plan.num_shards,
            "shards_missing": list(outcome.missing),
            "shards_given_up": list(outcome.given_up),
            "failures": self._failures(outcome),
            "last_run": self._last_run(outcome),
        }

    def _failures(self, outcome: RunOutcome) -> dict[str, str]:
        """Say why each shard was given up, by its number as JSON has it."""
        if not outcome.given_up:
            return {}
        committed = frozenset(range(self._plan.num_shards)) - frozenset(outcome.given_up)
        attempts = self._plan.run_directory.read_all_attempts(skip=committed)
        whys = {n: why_given_up(records) for n, records in sorted(attempts.items())}
        return {str(n): str(why) for n, why in whys.items() if why is not None}

    def _last_run(self, outcome: RunOutcome) -> dict[str, Any]:
        elapsed = outcome.elapsed_seconds
        run: dict[str, Any] = {
            "images": outcome.new_images,
            "elapsed_seconds": round(elapsed, 3),
            "images_per_second": round(outcome.new_images / elapsed, 3) if elapsed else 0.0,
            "stage_seconds": {name: round(s, 3) for name, s in self._stage_seconds.items()},
            "attempts_failed": dict(self._attempts_failed),
        }
        if self._seconds_per_image:
            values = np.percentile(self._seconds_per_image, _PERCENTILES)
            # Of shards' means: a shard is the unit that is timed.
            run["seconds_per_image"] = {
                f"p{p}": round(float(value), 4)
                for p, value in zip(_PERCENTILES, values, strict=True)
            }
        price = self._plan.config.workers.price_per_hour
        if price is not None and outcome.new_images:
            cost = price * elapsed / _SECONDS_PER_HOUR / outcome.new_images * 1000.0
            run["cost_per_thousand_images"] = round(cost, 4)
        return run
