"""Workers asked for, welcomed, replaced and let go, with stand-ins for Ray's actors."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import ray

from amg_pipeline.config import RunConfig
from amg_pipeline.distributed import cluster
from amg_pipeline.distributed import pool as pool_module
from amg_pipeline.distributed.cluster import WorkerShape
from amg_pipeline.distributed.pool import PooledWorker, WorkerPool
from amg_pipeline.distributed.worker import WorkerSetup
from amg_pipeline.errors import (
    AmgPipelineError,
    ConfigError,
    TransientStorageError,
    WeightsError,
)
from amg_pipeline.storage.mask_table import TableMetadata
from amg_pipeline.storage.stored_plan import StoredPlan
from tests.distributed.fake_ray import FakeClock, FakeRay, Stream
from tests.photo_runs import make_threshold_generator

CPU = WorkerShape(count=2, cpus=3.0, gpus=0.0, memory_bytes=None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> FakeRay:
    fake = FakeRay(clock)
    monkeypatch.setattr(pool_module, "ray", fake)
    monkeypatch.setattr(cluster, "ray", fake)
    return fake


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


def start(pool: WorkerPool, *tells: Any) -> PooledWorker:
    """Ask for one more worker and let its start go so."""
    pool.grow(CPU, len(pool.workers) + 1)
    worker = pool.workers[-1]
    worker.started = Stream(FakeClock(), [(0.0, thing) for thing in tells])
    for _ in tells:
        pool.hear(worker)
    return worker


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


def test_a_worker_is_placed_and_then_ready(pool: WorkerPool) -> None:
    pool.grow(CPU, 1)
    (worker,) = pool.workers
    assert worker.node is None
    pool.hear(worker)
    assert worker.node == "node-1"
    assert not worker.is_ready
    pool.hear(worker)
    assert worker.is_ready


@pytest.mark.parametrize("error", [WeightsError("do not fit"), ConfigError("no such backend")])
def test_what_every_worker_would_meet_ends_the_run_at_once(
    pool: WorkerPool, fake_ray: FakeRay, error: Exception
) -> None:
    with pytest.raises(type(error), match=str(error)):
        start(pool, "node-1", fails_to_start(error))
    assert not fake_ray.actors[0].is_alive


@pytest.mark.parametrize(
    "error",
    [
        fails_to_start(RuntimeError("no such library")),
        # Weights that cannot be fetched now may be there for the next one.
        fails_to_start(TransientStorageError("slow down")),
        ray.exceptions.ActorDiedError(),
    ],
)
def test_workers_that_fail_one_after_the_other_end_the_run(
    pool: WorkerPool, error: Exception
) -> None:
    for _ in range(2):
        start(pool, "node-1", error)
        assert pool.workers == []
    with pytest.raises(AmgPipelineError, match=r"Workers must come up\. Received: 3"):
        start(pool, "node-1", error)


def test_one_that_comes_up_makes_good_for_those_that_did_not(pool: WorkerPool) -> None:
    for _ in range(5):
        start(pool, ray.exceptions.ActorDiedError())
        start(pool, ray.exceptions.ActorDiedError())
        assert start(pool, "node-1", "node-1").is_ready


def test_a_preempted_start_does_not_count(pool: WorkerPool) -> None:
    taken = ray.exceptions.ActorDiedError()
    taken._preempted = True
    assert taken.preempted
    for _ in range(10):
        start(pool, taken)
    assert pool.workers == []


def test_a_start_that_went_with_its_machine_does_not_count(
    pool: WorkerPool, fake_ray: FakeRay
) -> None:
    fake_ray.machines[0]["Alive"] = False
    for _ in range(10):
        start(pool, "node-1", ray.exceptions.ActorDiedError())
    assert pool.workers == []


SILENT = ray.exceptions.ActorUnavailableError("Socket closed", None)


def test_a_start_whose_machine_no_longer_answers_does_not_count(
    pool: WorkerPool, fake_ray: FakeRay, clock: FakeClock
) -> None:
    """Ray takes a machine for alive for seconds after it is gone."""
    for _ in range(10):
        start(pool, "node-1", SILENT)
    pool.end_stuck_starts(as_of=clock.now)
    assert pool.workers == []
    fake_ray.machines[0]["Alive"] = False
    clock.now += 1000.0
    pool.end_stuck_starts(as_of=clock.now)


def test_a_silent_start_counts_if_its_machine_stays(pool: WorkerPool, clock: FakeClock) -> None:
    for _ in range(3):
        start(pool, "node-1", SILENT)
    clock.now += 120.0
    pool.end_stuck_starts(as_of=clock.now)
    clock.now += 1.0
    with pytest.raises(AmgPipelineError, match=r"Received: 3 failures.*Socket closed"):
        pool.end_stuck_starts(as_of=clock.now)


def test_a_start_that_does_not_end_gives_its_place_back(pool: WorkerPool, clock: FakeClock) -> None:
    """Its GPU would otherwise be nobody's for the rest of the run."""
    pool.grow(CPU, 1)  # without a place: that may last as long as it likes
    for count in (1, 2, 3):
        stuck = start(pool, "node-1")
        clock.now += 900.0
        pool.end_stuck_starts(as_of=clock.now)
        assert stuck in pool.workers
        clock.now += 1.0
        if count == 3:
            with pytest.raises(AmgPipelineError, match=r"3 failures.*not ready after 900 s"):
                pool.end_stuck_starts(as_of=clock.now)
        else:
            pool.end_stuck_starts(as_of=clock.now)
        assert stuck not in pool.workers
        assert not stuck.actor.is_alive
    assert len(pool.workers) == 1


def test_a_ready_worker_is_not_stuck(pool: WorkerPool, clock: FakeClock) -> None:
    worker = start(pool, "node-1", "node-1")
    clock.now += 1e6
    pool.end_stuck_starts(as_of=clock.now)
    assert pool.workers == [worker]


# What is asked of Ray


def options_of(pool: WorkerPool, fake_ray: FakeRay, shape: WorkerShape) -> dict[str, Any]:
    pool.grow(shape, len(pool.workers) + 1)
    return fake_ray.actors[-1].given


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
    first, second = start(pool, "node-1", "node-1"), start(pool, "node-2", "node-2")
    for _ in range(2):
        pool.add_device_fault(first)
        pool.add_device_fault(second)
    assert "scheduling_strategy" not in options_of(pool, fake_ray, CPU)
    pool.add_device_fault(second)
    (rule,) = options_of(pool, fake_ray, CPU)["scheduling_strategy"].hard
    assert (rule.key, rule.operator.values) == ("ray.io/node-id", ["node-2"])


def test_a_machine_that_does_a_shard_is_forgiven(pool: WorkerPool, fake_ray: FakeRay) -> None:
    worker = start(pool, "node-1", "node-1")
    for _ in range(10):
        for _ in range(2):
            pool.add_device_fault(worker)
        pool.forgive_device_faults(worker)
    assert "scheduling_strategy" not in options_of(pool, fake_ray, CPU)


def test_broken_accelerators_on_all_machines_end_the_run(
    pool: WorkerPool, fake_ray: FakeRay
) -> None:
    """Nothing else would ever happen."""
    lost = [start(pool, "node-1", "node-1"), start(pool, "node-2", "node-2")]
    for worker in lost:
        for _ in range(3):
            pool.add_device_fault(worker)
    # A worker that is up goes on, and may show that its machine works.
    pool.discard(lost[0])
    pool.grow(CPU, 2)
    pool.close()
    with pytest.raises(AmgPipelineError, match=r"accelerators.*node-1, node-2"):
        pool.grow(CPU, 1)
    fake_ray.machines.append({"NodeID": "node-3", "Alive": True, "Resources": {"CPU": 8.0}})
    pool.grow(CPU, 1)


# Waiting for a place


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    written: list[str] = []

    def log(logger: logging.Logger, level: int, event: str, **fields: Any) -> None:
        written.append(event)

    monkeypatch.setattr(pool_module, "log_event", log)
    return written


def test_workers_without_a_place_are_reported_once_and_only_after_a_while(
    pool: WorkerPool, clock: FakeClock, lines: list[str]
) -> None:
    start(pool, "node-1", "node-1")
    pool.grow(CPU, 3)
    clock.now += 59.0
    pool.report_unplaced()
    assert lines == []
    for seconds in (2.0, 1.0, 138.0):
        clock.now += seconds
        pool.report_unplaced()
    assert lines == ["2 of 3 workers are not up after 61 s; the run goes on with the others"]
    pool.grow(CPU, 4)
    clock.now += 61.0
    pool.report_unplaced()
    assert lines[1:] == ["3 of 4 workers are not up after 261 s; the run goes on with the others"]


def test_a_run_that_waits_for_its_first_worker_says_so_again(
    pool: WorkerPool, clock: FakeClock, lines: list[str]
) -> None:
    pool.grow(CPU, 1)
    for seconds in (61.0, 1.0, 58.0, 1.0, 1.0):
        clock.now += seconds
        pool.report_unplaced()
    assert lines == [
        f"1 of 1 workers are not up after {seconds} s; the run waits for the first one"
        for seconds in (61, 121)
    ]


def test_a_new_worker_is_not_ready() -> None:
    assert not PooledWorker(None, None, 0.0).is_ready
