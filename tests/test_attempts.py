"""What failures say about a shard: whom they make a suspect, whom they condemn, when it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.attempts import (
    FAILURE_REASONS,
    MAX_ERRORS,
    MAX_LOSSES,
    MAX_STRIKES,
    Failure,
    ShardTask,
)
from amg_pipeline.records import ImageRef, Shard

SUSPICIOUS = ("crash", "out_of_memory", "timeout")
#: What an attempt may end with; `given_up` is no attempt.
ENDS = tuple(reason for reason in FAILURE_REASONS if reason != "given_up")


def make_shard(rows: int = 5) -> Shard:
    return Shard(3, tuple(ImageRef(f"{row}.png", f"/in/{row}.png") for row in range(rows)))


def learned(task: ShardTask) -> tuple[Any, ...]:
    """All that a task knows."""
    return (task.known, task.suspect_from, task._strikes, task._errors, task._losses)


# One failure


def test_a_new_shard_suspects_nobody() -> None:
    task = ShardTask(make_shard())
    assert task.suspects() == []
    assert not task.is_last_attempt
    assert not task.is_exhausted


@pytest.mark.parametrize("reason", SUSPICIOUS)
def test_a_lost_worker_makes_the_unfinished_rows_suspects(reason: Any) -> None:
    task = ShardTask(make_shard())
    task.learn(Failure(reason=reason, rows_done=2))
    assert task.suspects() == [2, 3, 4]


@pytest.mark.parametrize("reason", ["error", "device", "node_lost", "preempted"])
def test_a_failure_that_is_no_images_fault_suspects_nobody(reason: Any) -> None:
    task = ShardTask(make_shard())
    task.learn(Failure(reason=reason, rows_done=2))
    assert task.suspects() == []


@pytest.mark.parametrize("reason", SUSPICIOUS)
def test_an_image_that_costs_workers_alone_is_condemned(reason: Any) -> None:
    task = ShardTask(make_shard())
    task.learn(Failure(reason=reason, rows_done=1))
    for strike in range(MAX_STRIKES):
        assert task.known == {}, strike
        task.learn(Failure(reason=reason, row=2))

    (row,) = task.known.values()
    assert row.ref.image_id == "2.png"
    assert row.status == reason
    assert row.masks == ()
    assert row.error_type
    assert "2.png" not in str(row.error_message), "a message is the same for every image"
    # Those before it came through alone.
    assert task.suspects() == [3, 4]
    assert not task.is_exhausted


def test_a_machine_that_is_lost_with_an_image_alone_is_no_strike() -> None:
    task = ShardTask(make_shard())
    task.learn(Failure(reason="crash", rows_done=1))
    for _ in range(MAX_STRIKES):
        task.learn(Failure(reason="node_lost", row=1))
        task.learn(Failure(reason="preempted", row=1))
    assert task.known == {}
    assert task.suspects() == [1, 2, 3, 4]


def test_a_condemned_image_explains_the_losses_before_it() -> None:
    task = ShardTask(make_shard())
    for _ in range(MAX_LOSSES - 1):
        task.learn(Failure(reason="crash", rows_done=0))
    for _ in range(MAX_STRIKES):
        task.learn(Failure(reason="crash", row=0))
    task.learn(Failure(reason="node_lost"))
    assert not task.is_exhausted


def test_errors_use_up_the_attempts_and_the_last_one_is_announced() -> None:
    task = ShardTask(make_shard())
    announced = []
    while not task.is_exhausted:
        announced.append(task.is_last_attempt)
        task.learn(Failure(reason="error"))
    assert announced == [False] * (MAX_ERRORS - 1) + [True]
    assert task.errors == MAX_ERRORS


@pytest.mark.parametrize("reason", ["crash", "device", "node_lost"])
def test_losses_use_up_the_attempts(reason: Any) -> None:
    task = ShardTask(make_shard())
    for _ in range(MAX_LOSSES):
        assert not task.is_exhausted
        task.learn(Failure(reason=reason))
    assert task.is_exhausted


def test_preemption_costs_no_attempt_however_often() -> None:
    task = ShardTask(make_shard())
    for _ in range(100):
        task.learn(Failure(reason="preempted", rows_done=1))
    assert learned(task) == learned(ShardTask(make_shard()))


def test_a_shard_that_was_given_up_is_tried_anew_and_its_culprits_stay_known() -> None:
    task = ShardTask(make_shard())
    for _ in range(MAX_STRIKES):
        task.learn(Failure(reason="timeout", row=4))
    for _ in range(MAX_ERRORS):
        task.learn(Failure(reason="error"))
    task.learn(Failure(reason="given_up"))
    assert not task.is_exhausted
    assert not task.is_last_attempt
    assert set(task.known) == {4}


def test_suspects_that_came_through_alone_are_not_tried_alone_again() -> None:
    """A failure of the whole shard says that the driver was through with its suspects."""
    task = ShardTask(make_shard())
    task.learn(Failure(reason="crash", rows_done=1))
    task.learn(Failure(reason="error", rows_done=4))
    assert task.suspects() == []


# Sequences


def drive(task: ShardTask, draw: Callable[[Any], Any], *, ends: tuple[str, ...]) -> list[Failure]:
    """Make attempts as the driver does, all of them failing as `draw` says, to the end.

    The shard's last attempt would succeed if only condemned images are left.
    """
    failures: list[Failure] = []
    rows = len(task.shard.images)
    while not task.is_exhausted and len(task.known) < rows:
        failure = None
        for row in task.suspects():
            reason = draw(st.sampled_from((None, *ends)))
            if reason is not None:
                failure = Failure(reason=reason, row=row)
                break
        if failure is None:
            task.suspect_from = None
            reason = draw(st.sampled_from(ends))
            failure = Failure(reason=reason, rows_done=draw(st.integers(0, rows)))
        task.learn(failure)
        failures.append(failure)
    return failures


@given(st.data(), st.integers(1, 4))
def test_any_sequence_of_failures_ends(data: st.DataObject, rows: int) -> None:
    """In a shard given up, or in one whose images are all condemned; without preemption."""
    task = ShardTask(make_shard(rows))
    ends = tuple(reason for reason in ENDS if reason != "preempted")

    failures = drive(task, data.draw, ends=ends)

    assert len(failures) <= MAX_ERRORS + MAX_LOSSES * (rows + 1) + MAX_STRIKES * rows
    for row, result in task.known.items():
        alone = [failure.reason for failure in failures if failure.row == row]
        assert sum(reason in SUSPICIOUS for reason in alone) >= MAX_STRIKES
        assert result.status in alone


@given(st.data(), st.integers(1, 4))
def test_what_is_stored_gives_back_what_was_known(data: st.DataObject, rows: int) -> None:
    shard = make_shard(rows)
    live = ShardTask(shard)
    ends = tuple(reason for reason in ENDS if reason != "preempted")
    failures = drive(live, data.draw, ends=ends)

    restored = ShardTask(shard)
    for failure in failures:
        stored = json.loads(json.dumps(failure.to_record(shard)))
        restored.learn(Failure.from_record(stored))

    assert learned(restored) == learned(live)


@given(st.data())
def test_a_new_driver_suspects_whom_the_last_one_did(data: st.DataObject) -> None:
    """With preemption, which is not stored, it may suspect more; never fewer."""
    live, restored = ShardTask(make_shard()), ShardTask(make_shard())
    for _ in range(data.draw(st.integers(0, 12))):
        row = data.draw(st.sampled_from((None, *live.suspects())))
        if row is None:
            live.suspect_from = None
        failure = Failure(reason=data.draw(st.sampled_from(ENDS)), row=row, rows_done=1)
        live.learn(failure)
        if failure.reason != "preempted":
            restored.learn(failure)
    assert set(live.suspects()) <= set(restored.suspects())
    assert live.known == restored.known


@pytest.mark.parametrize("reason", ["error", "device", "of another version", None])
def test_a_shard_whose_attempts_are_used_up_begins_anew(reason: str | None) -> None:
    """Its driver was killed before it could record that it gives up."""
    task = ShardTask.resumed(make_shard(), [{"reason": reason}] * max(MAX_ERRORS, MAX_LOSSES))
    assert not task.is_exhausted
    assert not task.is_last_attempt
    assert task.errors == 0


def test_what_a_shard_is_resumed_with_is_learned() -> None:
    strike = Failure(reason="crash", row=2).to_record(make_shard())
    task = ShardTask.resumed(make_shard(), [strike] * MAX_STRIKES + [{"reason": "error"}])
    assert list(task.known) == [2]
    assert task.errors == 1


def test_a_row_is_news_once() -> None:
    task = ShardTask(make_shard())
    told = [task.is_news(row) for row in (0, 1, 0, 1, 2, 0, 1, 2, 3)]
    assert told == [True, True, False, False, True, False, False, False, True]


# Records


@given(
    st.builds(
        Failure,
        reason=st.sampled_from(FAILURE_REASONS),
        error_type=st.text(max_size=5),
        message=st.text(max_size=5),
        row=st.none() | st.integers(0, 4),
        rows_done=st.integers(0, 5),
        node=st.none() | st.text(max_size=5),
    )
)
def test_a_failure_survives_its_record(failure: Failure) -> None:
    stored = json.loads(json.dumps(failure.to_record(make_shard())))
    assert Failure.from_record(stored) == failure


@pytest.mark.parametrize(
    ("failure", "suspects"),
    [
        (Failure(reason="crash", rows_done=3), ["3.png", "4.png"]),
        (Failure(reason="timeout", row=1), ["1.png"]),
        (Failure(reason="error", rows_done=3), []),
        (Failure(reason="node_lost", rows_done=3), []),
    ],
)
def test_a_record_names_the_suspects(failure: Failure, suspects: list[str]) -> None:
    assert failure.to_record(make_shard())["suspects"] == suspects


@pytest.mark.parametrize("record", [{}, {"reason": "of another version"}, {"reason": None}])
def test_what_is_not_understood_counts_as_an_error(record: dict[str, Any]) -> None:
    assert Failure.from_record(record).reason == "error"
