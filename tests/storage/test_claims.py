from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.errors import CommitConflictError, TransientStorageError
from amg_pipeline.storage import claims
from amg_pipeline.storage.claims import create_by_claim
from amg_pipeline.storage.faults import retry_transient
from tests.storage.doubles import EAGER

KEY, CLAIM = "plan.json", "plan/claim"


class CarelessStore:
    """Objects in memory; what is written replaces what is there."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.written: list[tuple[str, bytes]] = []

    def read(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError as error:
            raise FileNotFoundError(key) from error

    def put(self, key: str, data: bytes) -> None:
        self.objects[key] = data
        self.written.append((key, data))

    def exists(self, key: str) -> bool:
        return key in self.objects

    def remove(self, key: str) -> None:
        self.objects.pop(key, None)


class Clock:
    """In place of the module `time`."""

    def __init__(self, pause: Callable[[], object]) -> None:
        self._pause = pause

    def sleep(self, seconds: float) -> None:
        self._pause()


def run(verb: str, key: str, operation: Callable[[], Any]) -> Any:
    return retry_transient(EAGER, f"{verb} {key}", operation)


def create(store: Any, data: bytes) -> None:
    create_by_claim(store, KEY, data, claim_key=CLAIM, run=run, settle_s=1.0)


@pytest.fixture
def while_waiting(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """What happens during each wait in turn; nothing in those that follow."""
    events: list[Callable[[], None]] = []
    monkeypatch.setattr(claims, "time", Clock(lambda: events and events.pop(0)()))
    return events


def test_alone(while_waiting: list[Callable[[], None]]) -> None:
    store = CarelessStore()
    create(store, b"mine")
    assert store.objects == {KEY: b"mine"}
    with pytest.raises(CommitConflictError, match=r"plan\.json"):
        create(store, b"yours")
    assert store.objects == {KEY: b"mine"}


def test_whose_claim_was_replaced_waits_for_the_other(
    while_waiting: list[Callable[[], None]],
) -> None:
    store = CarelessStore()
    while_waiting += [
        lambda: store.put(CLAIM, b"another's"),
        lambda: None,
        lambda: store.put(KEY, b"theirs"),
    ]
    with pytest.raises(CommitConflictError):
        create(store, b"mine")
    assert store.objects == {KEY: b"theirs"}


def test_a_winner_that_died_is_replaced(while_waiting: list[Callable[[], None]]) -> None:
    store = CarelessStore()
    while_waiting += [lambda: store.put(CLAIM, b"another's")]
    create(store, b"mine")
    assert store.objects == {KEY: b"mine"}


def test_claims_that_never_end_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    store = CarelessStore()
    monkeypatch.setattr(claims, "time", Clock(lambda: store.put(CLAIM, b"another's")))
    with pytest.raises(TransientStorageError, match="same command again"):
        create(store, b"mine")
    assert not store.exists(KEY)


def test_a_write_that_is_retried_looks_again(while_waiting: list[Callable[[], None]]) -> None:
    class Failing(CarelessStore):
        def put(self, key: str, data: bytes) -> None:
            if key == KEY and data == b"mine" and not self.exists(KEY):
                # While this is waited out, another driver has claimed and written.
                super().put(KEY, b"theirs")
                raise TimeoutError
            super().put(key, data)

    store = Failing()
    with pytest.raises(CommitConflictError):
        create(store, b"mine")
    assert store.objects == {KEY: b"theirs"}


def test_a_lost_answer_is_a_conflict_with_ourselves(
    while_waiting: list[Callable[[], None]],
) -> None:
    class Forgetful(CarelessStore):
        def put(self, key: str, data: bytes) -> None:
            super().put(key, data)
            if key == KEY:
                raise ConnectionResetError

    store = Forgetful()
    with pytest.raises(CommitConflictError):
        create(store, b"mine")
    assert store.objects == {KEY: b"mine"}


#: From a look at the claim to the end of the write there are three operations of at most 3 steps.
SETTLE = 10
DRIVER = st.tuples(st.integers(0, 30), st.integers(1, 3))


@given(st.lists(DRIVER, min_size=2, max_size=4))
def test_of_drivers_that_start_at_any_time_one_writes(plays: list[tuple[int, int]]) -> None:
    store = CarelessStore()
    drivers = [_Driver(store, number, *play) for number, play in enumerate(plays)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "time", Clock(lambda: threading.current_thread().wait(SETTLE)))
        now = 0
        while any(driver.is_alive() for driver in drivers):
            for driver in drivers:
                driver.take_turn(now)
            now += 1
    written = [data for key, data in store.written if key == KEY]
    assert len(written) == 1
    assert store.objects == {KEY: written[0]}
    assert sorted(driver.outcome for driver in drivers) == [
        *["conflict"] * (len(drivers) - 1),
        "created",
    ]


class _Driver(threading.Thread):
    """A driver whose operations take so many steps of a clock that the test moves on."""

    def __init__(self, store: CarelessStore, number: int, start: int, steps: int) -> None:
        super().__init__(daemon=True)
        self.outcome = ""
        self._store = store
        self._data = b"plan %d" % number
        self._now = 0
        self._resume_at = start
        self._steps = steps
        self._may_go, self._is_waiting = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    def run(self) -> None:
        self._may_go.acquire()
        try:
            create(self, self._data)
            self.outcome = "created"
        except CommitConflictError:
            self.outcome = "conflict"
        finally:
            self._resume_at = sys.maxsize
            self._is_waiting.release()

    def take_turn(self, now: int) -> None:
        if now >= self._resume_at:
            self._now = now
            self._may_go.release()
            self._is_waiting.acquire()
            if self._resume_at == sys.maxsize:
                self.join()

    def wait(self, steps: int) -> None:
        self._resume_at = self._now + steps
        self._is_waiting.release()
        self._may_go.acquire()

    def __getattr__(self, name: str) -> Any:
        operation = getattr(self.__dict__["_store"], name)

        def later(*arguments: Any) -> Any:
            self.wait(self._steps)
            return operation(*arguments)

        return later
