"""A process that notices that it holds too much memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from amg_pipeline.distributed.memory_guard import MemoryGuard
from amg_pipeline.errors import ConfigError

_MIB = 2**20


@pytest.fixture
def room() -> Iterator[MemoryGuard]:
    """A guard with 150 MiB to spare."""
    guard = MemoryGuard(psutil.Process().memory_info().rss + 150 * _MIB)
    yield guard
    guard.exceeded.set()


def test_a_process_below_its_limit_is_left_alone(room: MemoryGuard) -> None:
    room.refuse_start()
    assert not room.exceeded.wait(0.2)


def test_too_much_memory_is_noticed_while_it_is_held(room: MemoryGuard) -> None:
    held = np.ones(250 * _MIB, np.uint8)
    assert room.exceeded.wait(5)
    del held


def test_what_was_noticed_stays_noticed_and_the_watch_ends(room: MemoryGuard) -> None:
    held = np.ones(250 * _MIB, np.uint8)
    room.exceeded.wait(5)
    del held
    for thread in threading.enumerate():
        if thread.name == "memory-guard":
            thread.join(1)
    assert room.exceeded.is_set()


def test_a_limit_below_what_is_held_already_is_refused_with_both_numbers() -> None:
    guard = MemoryGuard(_MIB)
    with pytest.raises(ConfigError, match=rf"memory_limit_bytes.*\d{{8,}}.*Received: {_MIB}"):
        guard.refuse_start()
    assert guard.exceeded.wait(5)
