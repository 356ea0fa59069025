"""Ray without Ray: actors that do what a test says when it says so, on a clock of its own.

Waiting moves the clock, so that hours pass in no time and in the same way each time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import ray

#: What is told, and how many seconds after what was told before it.
Tells = Iterable[tuple[float, Any]]
NEVER = math.inf


class FakeClock:
    """Stands in for the module `time`, too."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    monotonic = __call__

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Stream:
    """What a call of an actor tells, thing by thing."""

    def __init__(self, clock: FakeClock, tells: Tells) -> None:
        self._clock = clock
        self.tells = deque(tells)
        self._last = clock.now

    @property
    def due(self) -> float:
        """When the next thing is there."""
        return self._last + self.tells[0][0] if self.tells else NEVER

    def __next__(self) -> Any:
        if not self.tells:
            raise StopIteration
        self._last = max(self._last, self.due)
        return self.tells.popleft()[1]


class FakeActor:
    """An actor as a pool makes it."""

    def __init__(self, fake: FakeRay, options: dict[str, Any], setup: Any) -> None:
        self.given = options
        self.setup = setup
        self.is_alive = True
        self.node = fake.place(self)
        self._fake = fake

    def __getattr__(self, method: str) -> _Method:
        return _Method(self._fake, self, method)


class _Method:
    def __init__(self, fake: FakeRay, actor: FakeActor, name: str) -> None:
        self._fake = fake
        self._actor = actor
        self._name = name

    def options(self, *, num_returns: str) -> _Method:
        assert num_returns == "streaming"
        return self

    def remote(self, *arguments: Any) -> Stream:
        tells = getattr(self._fake, self._name)(self._actor, *arguments)
        return Stream(self._fake.clock, tells)


class FakeRay:
    """The functions of Ray that a pool and a driver call; tests replace `start` and its like."""

    exceptions = ray.exceptions

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.actors: list[FakeActor] = []
        self.machines = [
            {"NodeID": f"node-{n}", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}
            for n in (1, 2)
        ]

    # What a test decides

    def place(self, actor: FakeActor) -> str:
        """Choose a machine."""
        return str(self.machines[len(self.actors) % len(self.machines)]["NodeID"])

    def start(self, actor: FakeActor) -> Tells:
        return [(0.0, actor.node), (0.0, actor.node)]

    def run_shard(self, actor: FakeActor, *arguments: Any) -> Tells:
        raise NotImplementedError

    def try_image(self, actor: FakeActor, *arguments: Any) -> Tells:
        raise NotImplementedError

    # What is called

    def nodes(self) -> list[dict[str, Any]]:
        return self.machines

    def put(self, value: Any) -> Any:
        return value

    def remote(self, kind: type) -> _Maker:
        return _Maker(self)

    def get(self, thing: Any) -> Any:
        value = next(thing) if isinstance(thing, Stream) else thing
        if isinstance(value, Exception):
            raise value
        return value

    def wait(
        self, things: Sequence[Stream], *, num_returns: int, timeout: float, fetch_local: bool
    ) -> tuple[list[Stream], list[Stream]]:
        assert not fetch_local
        if timeout:
            self.clock.now = max(
                self.clock.now,
                min(self.clock.now + timeout, *(thing.due for thing in things)),
            )
        ready = [thing for thing in things if thing.due <= self.clock.now][:num_returns]
        return ready, [thing for thing in things if thing not in ready]

    def kill(self, actor: FakeActor, *, no_restart: bool) -> None:
        assert no_restart
        actor.is_alive = False


class _Maker:
    def __init__(self, fake: FakeRay) -> None:
        self._fake = fake

    def options(self, **options: Any) -> _Maker:
        self._options = options
        return self

    def remote(self, setup: Any) -> FakeActor:
        actor = FakeActor(self._fake, self._options, setup)
        self._fake.actors.append(actor)
        return actor
