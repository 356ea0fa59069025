"""Which Ray a run uses, and what its workers ask of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from amg_pipeline.config import WorkerSettings
from amg_pipeline.distributed import cluster
from amg_pipeline.distributed.cluster import connected, worker_shape
from amg_pipeline.errors import ConfigError

ROOT = Path(__file__).parents[2]


def node(*, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"Alive": alive, "Resources": resources}


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set what the machines of a cluster offer."""

    def set_nodes(*nodes: dict[str, Any]) -> None:
        monkeypatch.setattr(ray, "nodes", lambda: list(nodes))

    return set_nodes


def settings(**values: Any) -> WorkerSettings:
    return WorkerSettings(**values)


# How many workers, and what one takes


def test_without_gpus_there_is_one_worker_with_a_core_per_thread_and_one_more(offer: Any) -> None:
    offer(node(CPU=16.0))
    shape = worker_shape(settings())
    assert (shape.count, shape.cpus, shape.gpus) == (1, 3.0, 0.0)


def test_every_gpu_gets_a_worker(offer: Any) -> None:
    offer(node(CPU=8.0, GPU=2.0), node(CPU=8.0, GPU=1.0), node(CPU=4.0))
    shape = worker_shape(settings())
    assert (shape.count, shape.cpus, shape.gpus) == (3, 3.0, 1.0)


def test_fractions_of_gpus_give_more_workers(offer: Any) -> None:
    offer(node(CPU=32.0, GPU=2.0))
    shape = worker_shape(settings(gpus_per_worker=0.5))
    assert (shape.count, shape.cpus, shape.gpus) == (4, 3.0, 0.5)


@pytest.mark.parametrize(
    ("gpus", "share", "count"),
    [
        ([1.0] * 4, 0.4, 8),  # two on each machine, not ten in all
        ([1.0] * 4, 2.0, 1),  # no machine has two
        ([4.0, 2.0, 1.0], 2.0, 3),
        ([1.0], 0.1, 10),
        ([0.9], 0.3, 3),  # 0.9 / 0.3 is less than 3
    ],
)
def test_a_worker_does_not_spread_over_machines(
    offer: Any, gpus: list[float], share: float, count: int
) -> None:
    offer(*(node(CPU=64.0, GPU=number) for number in gpus))
    assert worker_shape(settings(gpus_per_worker=share)).count == count


def test_a_given_number_of_workers_is_asked_for_whatever_is_there(offer: Any) -> None:
    """A cluster that scales brings machines for those that have no place."""
    offer(node(CPU=8.0, GPU=1.0))
    assert worker_shape(settings(workers=6)).count == 6


def test_a_machine_with_fewer_cores_is_shared(offer: Any) -> None:
    offer(node(CPU=8.0, GPU=8.0))
    assert worker_shape(settings()).cpus == 1.0
    offer(node(CPU=5.0))
    assert worker_shape(settings(workers=2)).cpus == 2.0


@pytest.mark.parametrize("cores", [1.0, 2.0, 4.0, 7.0])
@pytest.mark.parametrize("workers", range(1, 13))
def test_all_workers_have_a_place_on_one_machine(offer: Any, cores: float, workers: int) -> None:
    offer(node(CPU=cores))
    shape = worker_shape(settings(workers=workers))
    assert shape.cpus * workers <= cores
    assert shape.cpus > 0
    # Ray takes fractions below 1 only.
    assert shape.cpus < 1 or shape.cpus == int(shape.cpus)


def test_more_threads_ask_for_more_cores(offer: Any) -> None:
    offer(node(CPU=64.0, GPU=4.0))
    assert worker_shape(settings(decode_threads=7)).cpus == 8.0


def test_machines_that_are_gone_do_not_count(offer: Any) -> None:
    offer(node(CPU=4.0, GPU=4.0, alive=False), node(CPU=16.0, GPU=1.0))
    shape = worker_shape(settings())
    assert (shape.count, shape.cpus) == (1, 3.0)


def test_a_head_without_cores_takes_no_worker_and_takes_none_from_them(offer: Any) -> None:
    offer(node(CPU=0.0), node(CPU=16.0))
    assert worker_shape(settings(workers=2)).cpus == 3.0


def test_a_cluster_that_has_no_workers_yet_is_asked_for_all(offer: Any) -> None:
    offer(node(CPU=0.0))
    shape = worker_shape(settings(workers=4, gpus_per_worker=1.0, memory_limit_bytes=2**30))
    assert (shape.count, shape.cpus, shape.gpus, shape.memory_bytes) == (4, 3.0, 1.0, 2**30)


# Which Ray


class FakeRay:
    """Stands in for the functions of Ray that connect."""

    def __init__(self, *, error: BaseException | None = None) -> None:
        self.calls: list[dict[str, Any]] = []
        self.is_up = False
        self._error = error

    def init(self, **arguments: Any) -> None:
        self.calls.append(arguments)
        # As Ray does it.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        if self._error is not None:
            raise self._error
        self.is_up = True

    def is_initialized(self) -> bool:
        return self.is_up

    def shutdown(self) -> None:
        self.is_up = False

    def nodes(self) -> list[dict[str, Any]]:
        return [node(CPU=2.0, memory=2.0**30)]


@pytest.fixture(autouse=True)
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Let every machine answer, and note who was called."""
    calls: list[tuple[str, int]] = []

    class Connection:
        def close(self) -> None:
            pass

    def connect(address: tuple[str, int], timeout: float) -> Connection:
        calls.append(address)
        return Connection()

    monkeypatch.setattr(socket, "create_connection", connect)
    return calls


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    fake = FakeRay()
    monkeypatch.setattr(cluster, "ray", fake)
    return fake


@pytest.mark.parametrize(
    ("argument", "environment", "address"),
    [
        ("10.0.0.1:6379", "10.0.0.2:6379", "10.0.0.1:6379"),
        (None, "10.0.0.2:6379", "10.0.0.2:6379"),
        (None, None, "local"),
        (None, "", "local"),
        ("local", "10.0.0.2:6379", "local"),
    ],
)
def test_the_argument_comes_before_the_environment_and_that_before_an_own_ray(
    fake_ray: FakeRay,
    monkeypatch: pytest.MonkeyPatch,
    argument: str | None,
    environment: str | None,
    address: str,
) -> None:
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    with connected(settings(address=argument)):
        assert fake_ray.is_up
    assert not fake_ray.is_up
    (call,) = fake_ray.calls
    assert call["address"] == address
    # Only its own Ray may be told how to be.
    assert ("object_store_memory" in call) == (address == "local")


def test_a_process_that_is_connected_stays_so(fake_ray: FakeRay) -> None:
    fake_ray.is_up = True
    with connected(settings(address="10.0.0.1:6379")):
        pass
    assert fake_ray.calls == []
    assert fake_ray.is_up


def test_ray_is_left_after_an_error_too(fake_ray: FakeRay) -> None:
    with pytest.raises(KeyError), connected(settings()):
        raise KeyError
    assert not fake_ray.is_up


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no one there"),
        ValueError("no"),
        RuntimeError("version"),
        ray.exceptions.AuthenticationError("no token"),
    ],
)
def test_a_cluster_that_does_not_answer_is_a_wrong_address(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(cluster, "ray", FakeRay(error=error))
    with (
        pytest.raises(ConfigError, match=r"--address.*10\.0\.0\.1:6379.*Leave it out"),
        connected(settings(address="10.0.0.1:6379")),
    ):
        pytest.fail("not connected")


@pytest.mark.parametrize(
    ("address", "called"),
    [
        ("10.0.0.1:6379", [("10.0.0.1", 6379)]),
        ("[::1]:6379", [("::1", 6379)]),
        ("auto", []),
        ("local", []),
    ],
)
def test_an_address_is_called_before_ray_is_asked_which_would_try_for_minutes(
    fake_ray: FakeRay, dialled: list[tuple[str, int]], address: str, called: list[tuple[str, int]]
) -> None:
    with connected(settings(address=address)):
        assert dialled == called


@pytest.mark.parametrize("error", [ConnectionRefusedError(), TimeoutError(), socket.gaierror()])
def test_a_machine_that_does_not_answer_is_told_at_once(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def refuse(address: tuple[str, int], timeout: float) -> None:
        raise error

    monkeypatch.setattr(socket, "create_connection", refuse)
    with (
        pytest.raises(ConfigError, match=r"--address.*10\.0\.0\.1:6379"),
        connected(settings(address="10.0.0.1:6379")),
    ):
        pytest.fail("not connected")
    assert fake_ray.calls == []


@pytest.mark.parametrize("source", ["argument", "environment"])
def test_ray_client_is_refused_at_once(
    fake_ray: FakeRay,
    monkeypatch: pytest.MonkeyPatch,
    dialled: list[tuple[str, int]],
    source: str,
) -> None:
    """It does not know actors' streams, and would say so by a traceback in the end."""
    if source == "environment":
        monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    address = "ray://head:10001" if source == "argument" else None
    with (
        pytest.raises(ConfigError, match=r"HOST:6379.*ray://head:10001.*ray job submit"),
        connected(settings(address=address)),
    ):
        pytest.fail("not connected")
    assert (fake_ray.calls, dialled) == ([], [])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus_per_worker": 1.0}, r"gpus_per_worker must be at most 0, .*Received: 1"),
        ({"memory_limit_bytes": 2**41}, rf"memory_limit_bytes must be at most {2**30}, .*{2**41}"),
    ],
)
def test_workers_that_this_machine_never_has_a_place_for_are_refused(
    fake_ray: FakeRay, values: dict[str, Any], message: str
) -> None:
    """A run would wait for ever."""
    with pytest.raises(ConfigError, match=message), connected(settings(**values)):
        pytest.fail("not connected")
    assert not fake_ray.is_up


def test_workers_that_fit_this_machine_are_not_refused(fake_ray: FakeRay) -> None:
    with connected(settings(gpus_per_worker=0.0, memory_limit_bytes=2**30)):
        assert fake_ray.is_up


def test_a_cluster_may_bring_gpus_later(fake_ray: FakeRay) -> None:
    with connected(settings(gpus_per_worker=1.0, address="10.0.0.1:6379")):
        assert fake_ray.is_up


@pytest.fixture
def default_sigterm() -> Iterator[None]:
    """What SIGTERM does in a process in which nobody has set it, as the command line does."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("default_sigterm")
def test_sigterm_does_what_it_did_before(fake_ray: FakeRay) -> None:
    with connected(settings()):
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def end_by_143(*_: object) -> None:
    raise SystemExit(143)


def terminate_in_a_wait() -> None:
    """End as Ray's waits do."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except SystemExit:
        raise SystemExit(1) from None


def test_the_exit_code_of_sigterm_survives_rays_waits(fake_ray: FakeRay) -> None:
    before = signal.signal(signal.SIGTERM, end_by_143)
    try:
        with pytest.raises(SystemExit) as ended, connected(settings()):
            terminate_in_a_wait()
        assert ended.value.code == 143
        assert signal.getsignal(signal.SIGTERM) is end_by_143
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not fake_ray.is_up


def test_the_exit_code_of_sigterm_is_ours_while_ray_connects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray ends a process that it is being connected to with the signal's number."""
    monkeypatch.setattr(cluster, "ray", FakeRay(error=SystemExit(int(signal.SIGTERM))))
    before = signal.signal(signal.SIGTERM, end_by_143)
    try:
        with pytest.raises(SystemExit) as ended, connected(settings()):
            pass
        assert ended.value.code == 143
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_exit_is_left_alone(fake_ray: FakeRay) -> None:
    with pytest.raises(SystemExit) as ended, connected(settings()):
        raise SystemExit(5)
    assert ended.value.code == 5


def test_sigterm_does_what_it_did_before_where_nobody_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "ray", FakeRay(error=ConnectionError()))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ConfigError), connected(settings(address="10.0.0.1:6379")):
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_may_connect_where_no_signal_can_be_set(fake_ray: FakeRay) -> None:
    failures = []

    def connect() -> None:
        try:
            with connected(settings()):
                pass
        except ValueError as error:
            failures.append(error)

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    assert failures == []


# The real one, in processes of their own since this one may be connected


def in_a_process(statement: str, **environment: str) -> subprocess.CompletedProcess[str]:
    script = (
        "import os, signal\n"
        "from amg_pipeline.config import WorkerSettings\n"
        "from amg_pipeline.distributed.cluster import connected, alive_nodes\n"
        "from amg_pipeline.errors import ConfigError\n" + statement
    )
    kept = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env={**kept, **environment},
    )


@pytest.mark.ray
def test_a_dead_address_is_refused_by_its_name() -> None:
    done = in_a_process(
        "try:\n"
        "    with connected(WorkerSettings()): print('connected')\n"
        "except ConfigError as error:\n"
        "    print('refused', error)\n",
        RAY_ADDRESS="127.0.0.1:1",
    )
    assert done.stdout.startswith("refused --address (or RAY_ADDRESS)"), done.stdout + done.stderr
    assert "127.0.0.1:1" in done.stdout


@pytest.mark.ray
def test_an_own_ray_starts_and_ends() -> None:
    done = in_a_process(
        "import ray\n"
        "with connected(WorkerSettings()):\n"
        "    print(len(alive_nodes()), ray.is_initialized())\n"
        "print(ray.is_initialized())\n"
    )
    assert done.stdout.split() == ["1", "True", "False"], done.stdout + done.stderr


@pytest.mark.ray
def test_sigterm_ends_a_wait_of_ray_with_its_own_code() -> None:
    done = in_a_process(
        "import os, sys, threading, time, ray\n"
        "def end(*_): sys.exit(143)\n"
        "def strike(): os.kill(os.getpid(), signal.SIGTERM)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "with connected(WorkerSettings()):\n"
        "    asleep = ray.remote(lambda: time.sleep(60)).remote()\n"
        "    threading.Timer(1.0, strike).start()\n"
        "    ray.wait([asleep], timeout=30)\n"
    )
    assert done.returncode == 143, done.stdout + done.stderr
