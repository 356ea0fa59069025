"""Notices that this process holds too much memory, before the machine runs out of it."""

from __future__ import annotations

import threading

import psutil

from amg_pipeline.errors import ConfigError

_INTERVAL_SECONDS = 0.02


class MemoryGuard:
    """Watches this process's resident memory from a thread.

    A process that allocates in C with the interpreter's lock held is not seen in time; the kernel
    or Ray's memory monitor ends it then.

    Args:
        limit_bytes: More than this is too much.

    Attributes:
        exceeded: Set once there was too much, and for good.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.exceeded = threading.Event()
        self._limit_bytes = limit_bytes
        self._process = psutil.Process()
        threading.Thread(target=self._watch, name="memory-guard", daemon=True).start()

    def refuse_start(self) -> None:
        """Make sure that there is room left now, so that no image is blamed for what it is not.

        Raises:
            ConfigError: If there is too much in memory already.
        """
        held = self._process.memory_info().rss
        if held > self._limit_bytes:
            raise ConfigError(
                f"workers.memory_limit_bytes must leave room beside the model, which takes {held}. "
                f"Received: {self._limit_bytes}"
            )

    def _watch(self) -> None:
        while not self.exceeded.wait(_INTERVAL_SECONDS):
            if self._process.memory_info().rss > self._limit_bytes:
                self.exceeded.set()
