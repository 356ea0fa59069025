"""Workers asked for, welcomed, replaced and let go, with stand-ins for Ray's actors."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import ray

from amg_pipeline.config import RunConfig
from amg_pipeline.distributed import pool as pool_module
from amg_pipeline.distributed.cluster import WorkerShape
from amg_pipeline.distributed.pool import PooledWorker, WorkerPool
from amg_pipeline.distributed.worker import WorkerSetup
from amg_pipeline.errors import AmgPipelineError, ConfigError, WeightsError
from amg_pipeline.storage.mask_table import TableMetadata
from amg_pipeline.storage.stored_plan import StoredPlan
from tests.photo_runs import make_threshold_generator

CPU = WorkerShape(count=2, cpus=3.0, gpus=0.0, memory_bytes=None)


class FakeActor:
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.is_alive = True
        # What `ray.get` of its start gives or raises.
        self.outcome: Any = "node-1"
        self.start = self

    def remote(self) -> FakeActor:
        return self


class FakeRay:
    """The functions that a pool calls."""

    exceptions = ray.exceptions

    def __init__(self) -> None:
        self.actors: list[FakeActor] = []
        self._options: dict[str, Any] = {}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, kind: type) -> FakeRay:
        return _Maker(self)  # type: ignore[return-value]

    def get(self, thing: FakeActor) -> Any:
        if isinstance(thing.outcome, Exception):
            raise thing.outcome
        return thing.outcome

    def kill(self, actor: FakeActor, *, no_restart: bool) -> None:
        assert no_restart
        actor.is_alive = False


class _Maker:
    def __init__(self, fake: FakeRay) -> None:
        self._fake = fake

    def options(self, **options: Any) -> _Maker:
        self._options = options
        return self

    def remote(self, setup: WorkerSetup) -> FakeActor:
        actor = FakeActor(self._options)
        self._fake.actors.append(actor)
        return actor


class FakeClock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    fake = FakeRay()
    monkeypatch.setattr(pool_module, "ray", fake)
    monkeypatch.setattr(pool_module, "alive_nodes", list)
    return fake


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def pool(fake_ray: FakeRay, clock: FakeClock) -> WorkerPool:
    setup = WorkerSetup(
        output_uri="/out",
        plan=StoredPlan(
            fingerprint="0" * 64,
            fingerprint_fields={},
            config={},
            weights_sha256="",
            package_version="0.1.0",
            schema_version=1,
            num_images=1,
            num_bytes=0,
            num_unsized=0,
            num_shards=1,
        ),
        metadata=TableMetadata("0" * 64, "0.1.0"),
        config=RunConfig(),
        make_generator=make_threshold_generator,
    )
    return WorkerPool(setup, clock=clock)


def fails_to_start(error: Exception) -> ray.exceptions.RayTaskError:
    return ray.exceptions.RayTaskError("start", "a traceback", error)


def start(pool: WorkerPool, outcome: Any) -> bool:
    """Ask for one more worker and let its start come out so."""
    pool.grow(CPU, len(pool.workers) + 1)
    worker = pool.workers[-1]
    worker.actor.outcome = outcome
    return pool.welcome(worker)


# How many


def test_a_pool_grows_to_what_is_wanted_and_asks_for_no_more(
    pool: WorkerPool, fake_ray: FakeRay
) -> None:
    pool.grow(CPU, 2)
    pool.grow(CPU, 2)
    pool.grow(CPU, 1)
    assert len(pool.workers) == len(fake_ray.actors) == 2
    assert not any(worker.is_ready for worker in pool.workers)


def test_a_lost_worker_is_replaced(pool: WorkerPool, fake_ray: FakeRay) -> None:
    pool.grow(CPU, 2)
    lost = pool.workers[0]
    pool.discard(lost)
    pool.discard(lost)
    pool.grow(CPU, 2)
    assert lost not in pool.workers
    assert [actor.is_alive for actor in fake_ray.actors] == [False, True, True]


def test_a_closed_pool_has_ended_all(pool: WorkerPool, fake_ray: FakeRay) -> None:
    pool.grow(CPU, 3)
    pool.close()
    assert pool.workers == []
    assert not any(actor.is_alive for actor in fake_ray.actors)


# Coming up


def test_a_worker_that_is_up_knows_its_machine(pool: WorkerPool) -> None:
    assert start(pool, "node-7")
    assert pool.workers[0].is_ready
    assert pool.workers[0].node == "node-7"


@pytest.mark.parametrize("error", [WeightsError("do not fit"), ConfigError("no such backend")])
def test_what_every_worker_would_meet_ends_the_run_at_once(
    pool: WorkerPool, fake_ray: FakeRay, error: Exception
) -> None:
    with pytest.raises(type(error), match=str(error)):
        start(pool, fails_to_start(error))
    assert not fake_ray.actors[0].is_alive


@pytest.mark.parametrize(
    "error", [fails_to_start(RuntimeError("no such library")), ray.exceptions.ActorDiedError()]
)
def test_workers_that_fail_one_after_the_other_end_the_run(
    pool: WorkerPool, error: Exception
) -> None:
    assert not start(pool, error)
    assert not start(pool, error)
    assert pool.workers == []
    with pytest.raises(AmgPipelineError, match=r"Workers must come up\. Received: 3"):
        start(pool, error)


def test_one_that_comes_up_makes_good_for_those_that_did_not(pool: WorkerPool) -> None:
    for _ in range(5):
        assert not start(pool, ray.exceptions.ActorDiedError())
        assert not start(pool, ray.exceptions.ActorDiedError())
        assert start(pool, "node-1")


def test_a_preempted_start_does_not_count(pool: WorkerPool) -> None:
    taken = ray.exceptions.ActorDiedError()
    taken._preempted = True
    assert taken.preempted
    for _ in range(10):
        assert not start(pool, taken)


# What is asked of Ray


def options_of(pool: WorkerPool, fake_ray: FakeRay, shape: WorkerShape) -> dict[str, Any]:
    pool.grow(shape, len(pool.workers) + 1)
    return fake_ray.actors[-1].options


def test_no_actor_is_restarted_or_retried_by_ray(pool: WorkerPool, fake_ray: FakeRay) -> None:
    options = options_of(pool, fake_ray, CPU)
    assert options["max_restarts"] == options["max_task_retries"] == 0
    assert options["max_concurrency"] == 2
    assert (options["num_cpus"], options["num_gpus"]) == (3.0, 0.0)
    assert "memory" not in options


@pytest.mark.parametrize(
    ("gpus", "environment"),
    [
        (0.0, {"CUDA_VISIBLE_DEVICES": "-1"}),
        (1.0, {}),
        (0.25, {"TF_FORCE_GPU_ALLOW_GROWTH": "true"}),
    ],
)
def test_a_worker_sees_its_own_devices_and_leaves_room_on_a_shared_one(
    pool: WorkerPool, fake_ray: FakeRay, gpus: float, environment: dict[str, str]
) -> None:
    shape = WorkerShape(count=1, cpus=1.0, gpus=gpus, memory_bytes=None)
    variables = options_of(pool, fake_ray, shape)["runtime_env"]["env_vars"]
    variables.pop("TF_CPP_MIN_LOG_LEVEL")
    assert variables == environment


def test_a_memory_limit_is_asked_for(pool: WorkerPool, fake_ray: FakeRay) -> None:
    shape = WorkerShape(count=1, cpus=1.0, gpus=0.0, memory_bytes=2**30)
    assert options_of(pool, fake_ray, shape)["memory"] == 2**30


def test_a_machine_whose_accelerators_break_again_and_again_is_avoided(
    pool: WorkerPool, fake_ray: FakeRay
) -> None:
    for node in ("a", "b"):
        pool.add_device_fault(node)
        pool.add_device_fault(node)
    assert "scheduling_strategy" not in options_of(pool, fake_ray, CPU)
    pool.add_device_fault("b")
    (rule,) = options_of(pool, fake_ray, CPU)["scheduling_strategy"].hard
    assert (rule.key, rule.operator.values) == ("ray.io/node-id", ["b"])


# Waiting for a place


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    written: list[str] = []

    def log(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
        written.append(event)

    monkeypatch.setattr(pool_module, "log_event", log)
    return written


def test_a_worker_without_a_place_is_reported_once_and_only_after_a_while(
    pool: WorkerPool, clock: FakeClock, lines: list[str]
) -> None:
    assert start(pool, "node-1")
    pool.grow(CPU, 2)
    clock.now = 59.0
    pool.report_unplaced()
    assert lines == []
    clock.now = 61.0
    pool.report_unplaced()
    pool.report_unplaced()
    assert lines == ["a worker is not up after 61 s; the run goes on with the others"]


def test_a_new_worker_is_not_ready() -> None:
    assert not PooledWorker(None, None, 0.0).is_ready
