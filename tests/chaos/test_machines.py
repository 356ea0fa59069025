"""Machines that go, on a real cluster: what Ray says of it, and what a driver makes of that."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from amg_pipeline.distributed.cluster import WorkerShape, is_alive
from amg_pipeline.distributed.driver import run_distributed
from amg_pipeline.distributed.pool import WorkerPool
from amg_pipeline.planning import Plan
from tests.chaos.storm import ChaosCluster, chaos_cluster
from tests.distributed.stubs import SlowGenerator, SlowStart
from tests.distributed.workers import setup_of
from tests.photo_runs import plan_photos, stored_masks, write_photos

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[ChaosCluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with chaos_cluster() as running:
            ray.init(address=running.address, log_to_driver=False, logging_level="ERROR")
            yield running
            ray.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("machines") / "in", 80)


@pytest.fixture(autouse=True)
def no_earlier_worker(cluster: ChaosCluster) -> None:
    """Wait for the end of workers of the run before, whose machine would not be this run's."""
    deadline = time.monotonic() + 60
    while left := cluster.worker_processes():
        assert time.monotonic() < deadline, f"workers of an earlier run must end: {left}"
        time.sleep(0.05)


def first_worker(cluster: ChaosCluster) -> psutil.Process:
    while not (processes := cluster.worker_processes()):
        time.sleep(0.05)
    return processes[0]


def run_and_lose_a_machine(
    cluster: ChaosCluster, plan: Plan, lose: Callable[[Any], None]
) -> dict[str, int]:
    """Lose the machine of a worker that has begun; give the reasons of failed attempts."""

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(run_distributed, plan, make_generator=SlowGenerator(0.15))
        worker = first_worker(cluster)
        while not plan.run_directory.committed(plan.stored):
            time.sleep(0.05)
        lose(cluster.node_of(worker))
        assert running.result().is_settled
    folder = Path(plan.run_directory.uri)
    reasons = json.loads((folder / "_amg/summary.json").read_text())["last_run"]["attempts_failed"]
    return dict(reasons)


def plan_of(photos: Path, out: Path) -> Plan:
    return plan_photos(photos, out, "workers.workers=2", shard_size=10)


@pytest.fixture(scope="module")
def undisturbed(
    cluster: ChaosCluster, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    plan = plan_of(photos, tmp_path_factory.mktemp("quiet") / "out")
    run_distributed(plan, make_generator=SlowGenerator(0.0))
    return stored_masks(plan.run_directory.uri)


def test_a_machine_that_is_preempted_costs_no_attempt(
    cluster: ChaosCluster, photos: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    plan = plan_of(photos, tmp_path / "out")
    reasons = run_and_lose_a_machine(cluster, plan, cluster.preempt_node)
    assert set(reasons) == {"preempted"}
    assert plan.run_directory.read_all_attempts(skip=()) == {}
    assert stored_masks(tmp_path / "out") == undisturbed


def test_a_machine_that_vanishes_suspects_no_image(
    cluster: ChaosCluster, photos: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    plan = plan_of(photos, tmp_path / "out")
    reasons = run_and_lose_a_machine(cluster, plan, cluster.remove_node)
    assert set(reasons) == {"node_lost"}
    records = plan.run_directory.read_all_attempts(skip=())
    assert {record["reason"] for shard in records.values() for record in shard} == {"node_lost"}
    assert stored_masks(tmp_path / "out") == undisturbed


@pytest.mark.parametrize("loss", ["remove_node", "preempt_node"])
def test_a_start_that_goes_with_its_machine_is_no_failed_start(
    cluster: ChaosCluster, photos: Path, tmp_path: Path, loss: str
) -> None:
    setup = setup_of(plan_of(photos, tmp_path / "out"), make_generator=SlowStart(60.0))
    pool = WorkerPool(setup, clock=time.monotonic)
    try:
        pool.grow(WorkerShape(count=1, cpus=1.0, gpus=0.0, memory_bytes=None), 1)
        (worker,) = pool.workers
        pool.hear(worker)
        assert worker.node is not None
        getattr(cluster, loss)(cluster.node_of(first_worker(cluster)))
        pool.hear(worker)
        assert pool.workers == []
        assert pool._failed_starts == 0
        deadline = time.monotonic() + 60
        while is_alive(worker.node):
            assert time.monotonic() < deadline, "Ray must find that the machine is lost"
            time.sleep(0.1)
    finally:
        pool.close()
