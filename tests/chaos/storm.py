"""Kills parts of a Ray cluster while a run goes on, and starts its driver anew until it is done."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

_NODE_CPUS = 2
_NODES = 3
_POLL_S = 0.1
#: A kill comes at the latest so long after the one before, wherever the run is then.
_LONGEST_LULL_S = 8.0
_GRACE_S = 1.0
_DRIVERS_AT_MOST = 25


@dataclass
class ChaosCluster:
    """A Ray cluster of several nodes on this machine; the head takes no work.

    Attributes:
        address: Where drivers find it.
    """

    address: str
    _cluster: Any
    _nodes: list[Any] = field(default_factory=list)

    def add_node(self) -> None:
        """Bring up a machine."""
        node = self._cluster.add_node(
            num_cpus=_NODE_CPUS, object_store_memory=80 * 2**20, include_dashboard=False
        )
        self._nodes.append(node)

    def any_node(self, rng: random.Random) -> Any:
        """Choose a machine."""
        return self._nodes[rng.randrange(len(self._nodes))]

    def node_of(self, worker: psutil.Process) -> Any:
        """Find the machine that a worker's process is on."""
        raylet = worker.parent()
        for node in self._nodes:
            if raylet and node.all_processes["raylet"][0].process.pid == raylet.pid:
                return node
        raise LookupError(worker)

    def remove_node(self, node: Any) -> None:
        """Lose a machine without notice, and get another one."""
        self._nodes.remove(node)
        self._cluster.remove_node(node, allow_graceful=False)
        self.add_node()

    def preempt_node(self, node: Any) -> None:
        """Lose a machine as a spot instance goes: with notice, and then without mercy."""
        from ray._raylet import GcsClient
        from ray.core.generated import autoscaler_pb2

        GcsClient(address=self.address).drain_node(
            node.node_id,
            autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
            "",
            int((time.time() + _GRACE_S) * 1000),
        )
        time.sleep(_GRACE_S)
        self.remove_node(node)

    def worker_processes(self) -> list[psutil.Process]:
        """List the processes that hold a worker."""
        found = []
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                if any("ray::MaskWorker" in word for word in process.cmdline()):
                    found.append(process)
        return found


@contextmanager
def chaos_cluster() -> Iterator[ChaosCluster]:
    """Start a cluster that notices lost nodes within seconds."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": 80 * 2**20,
            "_system_config": {
                "health_check_initial_delay_ms": 1000,
                "health_check_period_ms": 500,
                "health_check_timeout_ms": 1000,
                "health_check_failure_threshold": 4,
            },
        },
    )
    running = ChaosCluster(cluster.address, cluster)
    try:
        for _ in range(_NODES):
            running.add_node()
        yield running
    finally:
        cluster.shutdown()


@dataclass
class Storm:
    """One run under kills.

    Args:
        cluster: Where it runs.
        seed: Decides what is killed and when.
        arguments: Of `tests.chaos.driver`, without the address.
        committed: Counts the shards that are done.
        log: Where the drivers' output goes.
        marks: A folder that says to workers which of them is to die at a commit.
        kills: How many kills there are to be at least.
    """

    cluster: ChaosCluster
    seed: int
    arguments: Sequence[str]
    committed: Callable[[], int]
    log: Path
    marks: Path
    kills: int = 5
    done: Counter[str] = field(default_factory=Counter)
    drivers: int = 0

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._ordered: set[str] = set()

    def rage(self, *, shards: int) -> int:
        """Run until the driver ends by itself, killing meanwhile; give its exit code."""
        # At a commit dies one worker in every storm, by turns before and after the shard is put.
        at_commit = ("worker_before_commit", "worker_after_commit")[self.seed // 2 % 2]
        weapons = tuple(self._weapons())
        plan = [at_commit, *(self._rng.choice(weapons) for _ in range(self.kills - 1))]
        self._rng.shuffle(plan)
        # The first driver dies while it plans; in every other storm, one dies in its last writes.
        deadly = self._rng.randint(1, 4)
        dies_at_the_end = self.seed % 2 == 0
        while self.drivers < _DRIVERS_AT_MOST:
            code = self._drive(plan, shards, deadly)
            if code is not None:
                return code
            deadly = None
            if not plan and dies_at_the_end:
                dies_at_the_end = False
                deadly = self._rng.randint(1, 2)
        raise AssertionError(f"seed {self.seed}: not done after {self.drivers} drivers")

    def _drive(self, plan: list[str], shards: int, deadly: int | None) -> int | None:
        """Run one driver; give its exit code if it came to its own end, else None."""
        self.drivers += 1
        dying = [] if deadly is None else ["--die-at-write", str(deadly)]
        words = [*self.arguments, "--address", self.cluster.address, "--marks", str(self.marks)]
        words += dying
        with self.log.open("ab") as log:
            log_before = log.tell()
            driver = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.driver", *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
        try:
            self._strike_at(driver, plan, shards)
        finally:
            if driver.poll() is None:
                driver.kill()
            driver.wait()
        if driver.returncode == -signal.SIGKILL and deadly is not None:
            self.done["driver_write"] += 1
        is_lost = driver.returncode == 1 and self._lost_its_node(log_before)
        # A driver that is still importing has no handler for SIGTERM yet, and just ends.
        killed = (-signal.SIGKILL, -signal.SIGTERM, 143)
        if is_lost or driver.returncode in killed:
            return None
        return driver.returncode

    def _lost_its_node(self, log_before: int) -> bool:
        """Tell whether the driver sat on a machine that was removed, which ends it too."""
        with self.log.open("rb") as log:
            log.seek(log_before)
            return b"Raylet is terminated" in log.read()

    def _strike_at(self, driver: subprocess.Popen[bytes], plan: list[str], shards: int) -> None:
        """Kill what the plan says, one after the other, until the driver ends."""
        struck_at = time.monotonic()
        lull = self._rng.uniform(0.3, 1.0) * _LONGEST_LULL_S
        while driver.poll() is None:
            time.sleep(_POLL_S)
            used = sum(self.done.values())
            is_due = self.committed() >= shards * (used + 1) / (self.kills + 3)
            if not plan or not (is_due or time.monotonic() - struck_at > lull):
                continue
            if self._weapons()[plan[0]](driver):
                self.done[plan.pop(0)] += 1
                struck_at = time.monotonic()
                lull = self._rng.uniform(0.3, 1.0) * _LONGEST_LULL_S

    def _weapons(self) -> Mapping[str, Callable[[subprocess.Popen[bytes]], bool]]:
        return {
            "worker": lambda _: self._kill_worker(),
            "worker_before_commit": lambda _: self._kill_at_commit("before"),
            "worker_after_commit": lambda _: self._kill_at_commit("after"),
            "node": lambda _: _always(self._on_any_node(self.cluster.remove_node)),
            "preemption": lambda _: _always(self._on_any_node(self.cluster.preempt_node)),
            "driver": lambda driver: _always(driver.kill()),
            "driver_sigterm": lambda driver: _always(driver.terminate()),
        }

    def _on_any_node(self, strike: Callable[[Any], None]) -> None:
        strike(self.cluster.any_node(self._rng))

    def _kill_worker(self) -> bool:
        processes = self.cluster.worker_processes()
        if not processes:
            return False
        with suppress(psutil.Error):
            self._rng.choice(processes).kill()
            return True
        return False

    def _kill_at_commit(self, moment: str) -> bool:
        """Order a worker's death at its next commit; tell whether it has come."""
        mark = self.marks / moment
        if moment not in self._ordered:
            mark.touch()
            self._ordered.add(moment)
        if mark.exists():
            return False
        self._ordered.remove(moment)
        return True


def _always(_: None) -> bool:
    return True
