"""The Ray that a run uses: found or started, and what its machines offer a worker."""

from __future__ import annotations

import logging
import math
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import ray
from ray.exceptions import RayError

from amg_pipeline.config import WorkerSettings
from amg_pipeline.errors import ConfigError
from amg_pipeline.telemetry import log_event

_LOGGER = logging.getLogger(__name__)
#: Only small messages pass through Ray's object store; images and masks never do.
_LOCAL_OBJECT_STORE_BYTES = 100 * 2**20
_CONNECT_SECONDS = 10.0


@contextmanager
def connected(settings: WorkerSettings) -> Iterator[None]:
    """Connect to the run's Ray, or start one on this machine, and leave it in the end.

    The address is `settings.address`, else RAY_ADDRESS, else a new Ray of its own: what an earlier
    one left on this machine is never taken up. A process that is connected already stays so.

    Raises:
        ConfigError: If nothing answers at the address, or this machine's own Ray can never place a
            worker.
    """
    if ray.is_initialized():
        yield
        return
    address = settings.address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith("ray://"):
        raise ConfigError(
            "--address (or RAY_ADDRESS) must be a cluster's own address, as HOST:6379: what "
            f"workers tell does not come through Ray Client. Received: {address!r}. Run on a "
            "machine of the cluster, or give the run to it with `ray job submit`"
        )
    is_own = address == "local"
    with _sigterm_kept() as keep_sigterm:
        _connect(address, is_own=is_own)
        keep_sigterm()
        try:
            if is_own:
                _refuse_what_never_fits(settings)
            yield
        finally:
            ray.shutdown()


def _connect(address: str, *, is_own: bool) -> None:
    own: dict[str, Any] = {
        "include_dashboard": False,
        "object_store_memory": _LOCAL_OBJECT_STORE_BYTES,
    }
    try:
        _require_listener(address)
        ray.init(
            address=address,
            logging_level=logging.ERROR,
            configure_logging=False,
            **(own if is_own else {}),
        )
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise ConfigError(
            f"--address (or RAY_ADDRESS) must be a Ray cluster that answers. Received: {address!r}"
            f" ({error}). Leave it out to run on this machine"
        ) from error


def _refuse_what_never_fits(settings: WorkerSettings) -> None:
    """Refuse workers that this machine has no place for, now or later."""
    wanted = {
        "gpus_per_worker": ("GPU", settings.gpus_per_worker),
        "memory_limit_bytes": ("memory", settings.memory_limit_bytes),
    }
    for name, (resource, amount) in wanted.items():
        if amount and amount > _offered(resource):
            raise ConfigError(
                f"workers.{name} must be at most {_offered(resource):.0f}, which is what Ray "
                f"offers on this machine. Received: {amount}"
            )


def _require_listener(address: str) -> None:
    """Find a dead address in seconds; Ray itself would try it for minutes.

    Raises:
        OSError: If nothing listens there, or there is no such machine.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()


@contextmanager
def _sigterm_kept() -> Iterator[Callable[[], None]]:
    """Let SIGTERM do what it did: Ray's own way exits with 1, and its waits make 1 of every code.

    Yields:
        What is to be called when Ray has put its own way in place.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGTERM)
    exits: list[SystemExit] = []

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            if callable(before):
                before(number, frame)
        except SystemExit as error:
            exits.append(error)
            raise

    try:
        yield lambda: _set_sigterm(handle if callable(before) else before)
    except SystemExit as error:
        if exits:
            raise exits[0] from None
        if error.code == signal.SIGTERM and callable(before):
            # It came while Ray was connecting, with its own way in place already.
            before(signal.SIGTERM, None)
        raise
    finally:
        _set_sigterm(before)


def _set_sigterm(handler: Any) -> None:
    signal.signal(signal.SIGTERM, handler)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerShape:
    """How many workers there shall be, and what one takes of a machine.

    Attributes:
        count: Workers.
        cpus: Cores of a worker.
        gpus: GPUs of a worker; may be a fraction.
        memory_bytes: Memory of a worker, None if no limit is set.
    """

    count: int
    cpus: float
    gpus: float
    memory_bytes: int | None


def worker_shape(settings: WorkerSettings) -> WorkerShape:
    """Fit workers to what the cluster offers now.

    Without `settings.workers` there is one worker for each share of a GPU, or one where there is
    no GPU. A worker asks for a core per decode thread and one more, less where its machine has
    fewer.
    """
    gpus = settings.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if _offered("GPU") else 0.0
    count = settings.workers or max(1, _places(gpus))
    return WorkerShape(
        count=count,
        cpus=_cpus_of(settings.cores_per_worker, count, gpus),
        gpus=gpus,
        memory_bytes=settings.memory_limit_bytes,
    )


def alive_nodes() -> list[dict[str, Any]]:
    """List the machines that Ray sees."""
    return [node for node in ray.nodes() if node["Alive"]]


def is_alive(node: str) -> bool:
    """Tell whether Ray sees a machine, by its id."""
    return any(alive["NodeID"] == node for alive in alive_nodes())


def hosts(gpus: float) -> list[dict[str, Any]]:
    """List the machines that have what a worker needs most: so much of a GPU, or else any core."""
    name, least = ("GPU", gpus) if gpus else ("CPU", 0.01)
    return [node for node in alive_nodes() if node["Resources"].get(name, 0.0) >= least]


def _cpus_of(wanted: int, count: int, gpus: float) -> float:
    """Give each worker its share of a machine's cores, at most what it can use."""
    offers = [node["Resources"] for node in hosts(gpus)]
    if not offers:
        # An autoscaling cluster without workers as yet.
        return float(wanted)
    shares = []
    for host in offers:
        per_host = _shares(host["GPU"], gpus) if gpus else -(-count // len(offers))
        shares.append(host.get("CPU", 0.0) / max(1, min(per_host, count)))
    share = min(float(wanted), *shares)
    # Ray takes fractions below 1 only. Rounded up, the shares would be more than the machine.
    return float(int(share)) if share >= 1.0 else math.floor(share * 100) / 100


def _places(gpus: float) -> int:
    """Count the workers that fit on the GPUs that are there; none spreads over two machines."""
    if not gpus:
        return 0
    return sum(_shares(node["Resources"].get("GPU", 0.0), gpus) for node in alive_nodes())


def _shares(offered: float, gpus: float) -> int:
    # 0.9 / 0.3 is less than 3.
    return math.floor(offered / gpus + 1e-6)


def _offered(resource: str) -> float:
    return float(sum(node["Resources"].get(resource, 0.0) for node in alive_nodes()))


def log_shape(shape: WorkerShape) -> None:
    """Say what is asked of the cluster."""
    log_event(
        _LOGGER,
        logging.INFO,
        f"asking Ray for {shape.count} worker(s)",
        cpus=shape.cpus,
        gpus=shape.gpus,
    )
