"""Who has the model: one at a time, in the order in which they asked."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Turns:
    """Gives the model to whoever asked first, even where others could use it sooner.

    Were it given to who is ready first, a shard whose first image hangs would be passed by all that
    follow, and nobody would notice that it makes no progress.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._queue: deque[Turn] = deque()

    @contextmanager
    def queue(self) -> Iterator[Turn]:
        """Take a place at the end, and leave it at the end of the block at the latest."""
        turn = Turn(self._changed, self._queue)
        with self._changed:
            self._queue.append(turn)
        try:
            yield turn
        finally:
            turn.leave()


class Turn:
    """A place among those that want the model."""

    def __init__(self, changed: Condition, queue: deque[Turn]) -> None:
        self._changed = changed
        self._queue = queue

    def wait(self) -> None:
        """Wait until all who asked earlier have left."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue[0] is self)

    def leave(self) -> None:
        """Let the next one have the model; may be called again."""
        with self._changed:
            if self in self._queue:
                self._queue.remove(self)
                self._changed.notify_all()
