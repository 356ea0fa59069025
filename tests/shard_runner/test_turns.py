"""The model goes from hand to hand in the order in which it was asked for."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from amg_pipeline.shard_runner.turns import Turn, Turns


def waiting(turn: Turn) -> threading.Event:
    """Wait for a turn in a thread; the event says that it has come."""
    has_come = threading.Event()
    threading.Thread(target=lambda: (turn.wait(), has_come.set()), daemon=True).start()
    return has_come


def test_turns_come_in_the_order_of_asking_whoever_is_ready_first() -> None:
    turns = Turns()
    with ExitStack() as stack:
        first, second, third = (stack.enter_context(turns.queue()) for _ in range(3))
        third_has, second_has = waiting(third), waiting(second)
        assert not second_has.wait(0.1)
        first.leave()
        assert second_has.wait(20)
        assert not third_has.wait(0.1)
        second.leave()
        assert third_has.wait(20)


def test_who_is_first_does_not_wait_however_often_it_asks() -> None:
    with Turns().queue() as turn:
        turn.wait()
        turn.wait()


def test_who_gives_up_before_its_turn_holds_up_nobody() -> None:
    turns = Turns()
    with turns.queue() as first:
        with pytest.raises(KeyError), turns.queue():
            raise KeyError
        with turns.queue() as third:
            has_come = waiting(third)
            first.leave()
            first.leave()
            assert has_come.wait(20)
