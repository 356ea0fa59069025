"""Which shard is next: order, waiting, and suspects that need a worker for themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.attempts import Failure, ShardTask
from amg_pipeline.distributed.shard_queue import ShardQueue
from amg_pipeline.records import ImageRef, Shard

CRASH = {"reason": "crash", "rows_done": 0}


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shards(numbers: Iterable[int]) -> Iterator[Shard]:
    for number in numbers:
        yield Shard(number, (ImageRef(f"{number}.png", f"/in/{number}.png"),))


def make_queue(
    count: int,
    *,
    clock: FakeClock | None = None,
    earlier: Mapping[int, list[dict[str, Any]]] | None = None,
) -> ShardQueue:
    return ShardQueue(
        shards(range(count)),
        total=count,
        earlier_failures=earlier or {},
        clock=clock or FakeClock(),
        first_wait_seconds=5.0,
    )


def take(queue: ShardQueue, *, with_suspects: bool = True) -> ShardTask:
    task = queue.take(with_suspects=with_suspects)
    assert task is not None
    return task


def drain(queue: ShardQueue, *, with_suspects: bool = True) -> list[int]:
    taken = []
    while (task := queue.take(with_suspects=with_suspects)) is not None:
        taken.append(task.shard.shard_id)
    return taken


def test_new_shards_come_in_the_plans_order() -> None:
    queue = make_queue(3)
    assert len(queue) == 3
    assert drain(queue) == [0, 1, 2]
    assert len(queue) == 0


def test_shards_are_read_as_they_are_given_out() -> None:
    read = []

    def watched() -> Iterator[Shard]:
        for shard in shards(range(1000)):
            read.append(shard.shard_id)
            yield shard

    queue = ShardQueue(
        watched(), total=1000, earlier_failures={}, clock=FakeClock(), first_wait_seconds=5.0
    )
    take(queue)
    assert read == [0]


def test_a_shard_that_comes_back_goes_before_new_ones() -> None:
    queue = make_queue(3)
    first = take(queue)
    queue.put_back(first)
    assert len(queue) == 3
    assert drain(queue) == [0, 1, 2]


def test_a_shard_waits_after_an_error_and_longer_after_each() -> None:
    clock = FakeClock()
    queue = make_queue(1, clock=clock)
    task = take(queue)
    for wait in (5.0, 10.0, 20.0):
        task.learn(Failure(reason="error"))
        queue.put_back(task, after_error=True)
        clock.now += wait - 0.01
        assert queue.take(with_suspects=True) is None
        assert len(queue) == 1
        clock.now += 0.02
        assert take(queue) is task


def test_new_shards_are_given_out_while_one_waits() -> None:
    clock = FakeClock()
    queue = make_queue(3, clock=clock)
    task = take(queue)
    task.learn(Failure(reason="error"))
    queue.put_back(task, after_error=True)
    assert take(queue).shard.shard_id == 1
    clock.now += 6
    assert drain(queue) == [0, 2]


def test_a_shard_with_suspects_is_kept_for_a_worker_without_another() -> None:
    queue = make_queue(2)
    task = take(queue)
    task.learn(Failure(reason="crash", rows_done=0))
    queue.put_back(task)
    assert take(queue, with_suspects=False).shard.shard_id == 1
    assert queue.take(with_suspects=False) is None
    assert len(queue) == 1
    assert take(queue) is task


def test_what_earlier_drivers_recorded_is_known_and_used_once() -> None:
    strike = {"reason": "timeout", "row": 0}
    queue = make_queue(2, earlier={0: [strike, strike], 1: [{"reason": "error"}]})
    first, second = take(queue), take(queue)
    assert first.known[0].status == "timeout"
    assert second.errors == 1
    queue.put_back(second)
    assert take(queue).errors == 1


def test_thousands_of_shards_with_suspects_are_passed_over() -> None:
    """Each of them came from a run whose machines ran out of memory; no recursion ends in an
    error."""
    count = 5000
    queue = make_queue(count + 1, earlier={number: [CRASH] for number in range(count)})
    assert drain(queue, with_suspects=False) == [count]
    assert len(queue) == count
    assert drain(queue) == list(range(count))


@given(st.lists(st.sampled_from(["take", "alone", "back", "error", "wait"]), max_size=40))
def test_no_shard_is_lost_or_given_out_twice(steps: list[str]) -> None:
    clock = FakeClock()
    queue = make_queue(6, clock=clock, earlier={2: [CRASH], 4: [CRASH]})
    out: list[ShardTask] = []
    for step in steps:
        if step in {"take", "alone"}:
            task = queue.take(with_suspects=step == "alone")
            out += [task] if task is not None else []
        elif step == "wait":
            clock.now += 100
        elif out:
            queue.put_back(out.pop(0), after_error=step == "error")
        assert len(queue) + len(out) == 6
    clock.now += 1000
    left = drain(queue)
    assert sorted([*left, *(task.shard.shard_id for task in out)]) == list(range(6))
