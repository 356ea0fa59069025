"""The shards that are to do: which is next, which waits, which are left."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any

from amg_pipeline.attempts import ShardTask
from amg_pipeline.records import Shard


class ShardQueue:
    """Gives out shards in order, those that are to be tried again first.

    Args:
        shards: What is not committed, read as it is given out.
        total: How many there are.
        earlier_failures: What earlier drivers recorded, by shard and in order.
        clock: Gives seconds.
        first_wait_seconds: How long a shard waits after its first error; twice as long after each
            further one.
    """

    def __init__(
        self,
        shards: Iterable[Shard],
        *,
        total: int,
        earlier_failures: Mapping[int, Iterable[Mapping[str, Any]]],
        clock: Callable[[], float],
        first_wait_seconds: float,
    ) -> None:
        self._new: Iterator[Shard] = iter(shards)
        self._left = total
        self._earlier = dict(earlier_failures)
        self._clock = clock
        self._first_wait = first_wait_seconds
        self._again: list[tuple[float, int, ShardTask]] = []
        self._order = count()

    def __len__(self) -> int:
        """Count the shards that nobody has."""
        return self._left + len(self._again)

    def take(self, *, with_suspects: bool) -> ShardTask | None:
        """Give out a shard; None if there is none now.

        Args:
            with_suspects: Whether it may have suspects, which need a worker that does nothing else.
        """
        is_due = bool(self._again) and self._again[0][0] <= self._clock()
        if is_due and (with_suspects or not self._again[0][2].suspects()):
            return heapq.heappop(self._again)[2]
        while self._left:
            self._left -= 1
            shard = next(self._new)
            task = ShardTask.resumed(shard, self._earlier.pop(shard.shard_id, ()))
            if with_suspects or not task.suspects():
                return task
            self.put_back(task)
        return None

    def put_back(self, task: ShardTask, *, after_error: bool = False) -> None:
        """Take a shard back that is not committed.

        Args:
            task: What was given out.
            after_error: Whether it shall wait, longer with each of its errors.
        """
        wait = self._first_wait * 2 ** max(task.errors - 1, 0) if after_error else 0.0
        heapq.heappush(self._again, (self._clock() + wait, next(self._order), task))
