"""A Ray head on this machine with a job server, as `ray start --head` makes it; loopback only."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Where `ray` and `python` of this environment are.
_BIN = Path(sys.executable).parent
#: Loopback, but not the address that Ray replaces by the machine's own.
_NODE_ADDRESS = "127.0.0.2"
_STARTED_WITHIN_SECONDS = 60
_ENDED_WITHIN_SECONDS = 30
_JOB_ENDS_WITHIN_SECONDS = 200


@dataclass(frozen=True)
class Ended:
    """How a submission ended: its exit code, and all it printed, the job's log among it."""

    code: int
    log: str


@dataclass(frozen=True)
class LocalHead:
    """A head that runs.

    Attributes:
        address: Of its job server.
        environment: Variables of a client that it answers to.
    """

    address: str
    environment: Mapping[str, str]

    def submit(self, *words: object, folder: Path) -> Ended:
        """Submit a job with a folder as its working directory, and wait for its end."""
        return self.call("job", "submit", "--working-dir", ".", *words, folder=folder)

    def call(self, *words: object, folder: Path = ROOT) -> Ended:
        """Give a command of `ray`."""
        return self.run(_BIN / "ray", *words, folder=folder)

    def run(self, *command: object, folder: Path = ROOT) -> Ended:
        """Run a command as a client of this head."""
        ended = subprocess.run(
            [str(word) for word in command],
            cwd=folder,
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_JOB_ENDS_WITHIN_SECONDS,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout)


@contextmanager
def local_head(*, num_cpus: int, num_gpus: int) -> Iterator[LocalHead]:
    """Start a head whose GPUs are logical, and end it with all its processes."""
    gcs, dashboard, metrics, agent, client = _free_ports(5)
    address = f"http://127.0.0.1:{dashboard}"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("RAY_")
    } | {
        "PATH": f"{_BIN}:{os.environ['PATH']}",
        "RAY_API_SERVER_ADDRESS": address,
        # Some of Ray's ports listen beyond loopback, whatever it is told.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    # Set by the tests' own set-up; a worker is to be given it by the driver.
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    # Short: the paths of Ray's sockets must not be longer than 107 characters.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    command = [
        str(_BIN / "ray"), "start", "--head", "--block",
        f"--node-ip-address={_NODE_ADDRESS}", f"--port={gcs}",
        "--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
        f"--metrics-export-port={metrics}", f"--dashboard-agent-listen-port={agent}",
        f"--ray-client-server-port={client}", f"--temp-dir={folder}",
        f"--num-cpus={num_cpus}", f"--num-gpus={num_gpus}", "--object-store-memory=100000000",
        "--disable-usage-stats",
    ]  # fmt: skip
    output = Path(folder) / "start.log"
    with output.open("w") as log:
        head = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_until_up(f"{address}/api/version", environment["RAY_AUTH_TOKEN"], head, output)
            yield LocalHead(address, environment)
        finally:
            _end(head)
            shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _wait_until_up(url: str, token: str, head: subprocess.Popen[bytes], output: Path) -> None:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    give_up_at = time.monotonic() + _STARTED_WITHIN_SECONDS
    while time.monotonic() < give_up_at and head.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(request, timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"the head did not come up:\n{output.read_text()}")


def _end(head: subprocess.Popen[bytes]) -> None:
    """End a head; it ends its own processes when it is told to."""
    head.terminate()
    try:
        head.wait(_ENDED_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
