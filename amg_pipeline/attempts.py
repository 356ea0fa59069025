"""What failed attempts say about a shard and its images: when to retry, suspect, condemn, give up.

Every failure is one `Failure`; it is stored as it is, and whoever takes up a run learns from the
stored ones what the last one knew, be it a driver on Ray or a run in one process.

An image that ends its worker's process, hangs it or fills its memory cannot report itself. After
such a loss the shard's unfinished rows are suspects: they are tried one by one on a worker that
does nothing else. An image that costs a worker twice while it is tried alone is condemned: its row
says how, and the shard is finished without it. A machine that is lost suspects nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

from amg_pipeline.records import ImageResult, ImageStatus, Shard

#: Attempts at a shard that may end in an error of its own, before it is given up.
MAX_ERRORS = 3
#: Workers that a shard may lose, before it is given up; machines come and go more often than that
#: an image is at fault.
MAX_LOSSES = 6
#: Workers that an image must cost while it is tried alone.
MAX_STRIKES = 2

FailureReason = Literal[
    "error",  # the attempt raised
    "device",  # the accelerator is broken until its process ends
    "crash",  # the process died
    "out_of_memory",  # the process had too much memory
    "timeout",  # no image was finished for too long
    "node_lost",  # the machine died or could not be reached
    "preempted",  # the machine was taken away with notice, or another shard's image did it
    "given_up",  # attempts were used up; a later run starts to count anew
]
FAILURE_REASONS: tuple[str, ...] = get_args(FailureReason)

_SUSPICIOUS = frozenset({"crash", "out_of_memory", "timeout"})
#: The same on every machine and in every run.
_VERDICTS: Mapping[str, tuple[str, str]] = {
    "crash": ("WorkerDied", "The image must leave its worker alive. Received: a process that died"),
    "out_of_memory": ("MemoryError", "The image needs more memory than the worker has"),
    "timeout": (
        "TimeoutError",
        "The image must be done within workers.image_timeout_seconds. Received: no result",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed attempt.

    Attributes:
        reason: What kind of failure it was.
        error_type: Class of the error.
        message: What happened.
        row: The row that was being tried alone, by its number in the shard; None if none was.
        rows_done: Rows that were finished when it happened.
        node: The machine, where it is known.
    """

    reason: FailureReason
    error_type: str = ""
    message: str = ""
    row: int | None = None
    rows_done: int = 0
    node: str | None = None

    def __str__(self) -> str:
        """Say in one line what happened."""
        said = [self.reason, self.error_type, *self.message.splitlines()[:1]]
        return ": ".join(filter(None, said))

    def to_record(self, shard: Shard) -> dict[str, Any]:
        """Give what is stored; `suspects` is for people to read."""
        suspects = [] if self.reason not in _SUSPICIOUS else self._suspects(shard)
        return {
            "reason": self.reason,
            "error_type": self.error_type,
            "error_message": self.message,
            "row": self.row,
            "rows_done": self.rows_done,
            "node": self.node,
            "suspects": suspects,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Failure:
        """Read what `to_record` gave; what another version stored counts as an error."""
        reason = record.get("reason")
        return cls(
            reason=cast("FailureReason", reason) if reason in FAILURE_REASONS else "error",
            error_type=str(record.get("error_type", "")),
            message=str(record.get("error_message", "")),
            row=record.get("row"),
            rows_done=record.get("rows_done", 0),
            node=record.get("node"),
        )

    def _suspects(self, shard: Shard) -> list[str]:
        stop = len(shard.images) if self.row is None else self.row + 1
        start = self.rows_done if self.row is None else self.row
        return [ref.image_id for ref in shard.images[start:stop]]


def why_given_up(records: Iterable[Mapping[str, Any]]) -> Failure | None:
    """Tell what the last attempt of a shard ended with, if its attempts were used up then."""
    failures = [Failure.from_record(record) for record in records]
    if not failures or failures.pop().reason != "given_up":
        return None
    causes = [failure for failure in failures if failure.reason != "given_up"]
    return causes[-1] if causes else None


@dataclass(slots=True)
class ShardTask:
    """A shard that is not committed, and what is known about it.

    Attributes:
        shard: What to do.
        known: Rows of condemned images, by number.
        suspect_from: The first row to be tried alone; None if nobody is suspected.
    """

    shard: Shard
    known: dict[int, ImageResult] = field(default_factory=dict)
    suspect_from: int | None = None
    _told: int = 0
    _strikes: Counter[int] = field(default_factory=Counter)
    _errors: int = 0
    _losses: int = 0

    @classmethod
    def resumed(cls, shard: Shard, records: Iterable[Mapping[str, Any]]) -> ShardTask:
        """Take up a shard with what is recorded about it; its attempts begin anew if used up."""
        task = cls(shard)
        for record in records:
            task.learn(Failure.from_record(record))
        if task.is_exhausted:
            # Whoever recorded the last failure was killed before it could say that it gives up.
            task.learn(Failure(reason="given_up"))
        return task

    @property
    def is_last_attempt(self) -> bool:
        """Whether another error gives the shard up."""
        return self._errors >= MAX_ERRORS - 1

    @property
    def is_exhausted(self) -> bool:
        """Whether the shard is to be given up."""
        return self._errors >= MAX_ERRORS or self._losses >= MAX_LOSSES

    @property
    def errors(self) -> int:
        """Attempts that ended in an error of the shard's own."""
        return self._errors

    def suspects(self) -> list[int]:
        """List the rows to be tried alone."""
        if self.suspect_from is None:
            return []
        rows = range(self.suspect_from, len(self.shard.images))
        redo = self.shard.redo
        return [r for r in rows if r not in self.known and (redo is None or r in redo)]

    def is_news(self, row: int) -> bool:
        """Tell whether a row is done for the first time, however often its shard is tried.

        Args:
            row: Its number; those of an attempt come in order.
        """
        if row < self._told:
            return False
        self._told = row + 1
        return True

    def learn(self, failure: Failure) -> None:
        """Draw the consequences of a failed attempt."""
        if failure.reason == "preempted":
            return
        if failure.reason == "given_up":
            self._errors = self._losses = 0
            return
        if failure.row is None:
            # The whole shard was running, so whoever was suspected came through alone.
            self.suspect_from = None
        if failure.reason == "error":
            self._errors += 1
            return
        if failure.reason not in _SUSPICIOUS:
            self._losses += 1
            return
        if failure.row is None:
            self._losses += 1
            self.suspect_from = failure.rows_done
            return
        self._strike(failure.row, failure.reason)

    def _strike(self, row: int, reason: str) -> None:
        self._strikes[row] += 1
        self.suspect_from = row
        if self._strikes[row] < MAX_STRIKES:
            return
        error_type, message = _VERDICTS[reason]
        status = cast("ImageStatus", reason)
        ref = self.shard.images[row]
        self.known[row] = ImageResult(ref, status, error_type=error_type, error_message=message)
        # The losses are explained.
        self._losses = 0
