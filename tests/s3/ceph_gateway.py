"""A real S3 server for tests: Ceph's RADOS Gateway, with its storage in memory.

    with ceph_gateway(tmp_path) as server:
        bucket = server.new_bucket()
        environment = server.environment()

One monitor, one object store and the gateway run on free loopback ports below a temporary folder,
and are ready after some 15 seconds. They need Debian's `ceph-mon ceph-osd radosgw`, which
`make s3` installs. Ceph 16 honours If-None-Match, atomically, but not If-Match.
"""

from __future__ import annotations

import http.client
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.s3.s3_server import S3Server

PACKAGES = ("ceph-mon", "ceph-osd", "radosgw")
_PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw")
_START_S = 90.0
_STARTS = 3
_COMMAND_S = 60.0
_STOP_S = 10.0
_POLL_S = 0.1
#: Below the ports from which systems take those of outgoing connections, and above Ray's.
_PORTS = range(20_000, 32_000)


def missing_programs() -> list[str]:
    """Name the programs that are not installed; with any of them missing, nothing starts."""
    return [name for name in (*_PROGRAMS, "radosgw-admin") if shutil.which(name) is None]


@contextmanager
def ceph_gateway(folder: Path) -> Iterator[S3Server]:
    """Start a gateway that keeps its files below a folder, and stop it at the end.

    The folder's path must be short, some 60 characters: sockets lie in it.

    Raises:
        RuntimeError: If a program is missing, or ends at each of several starts; its log is part
            of the message.
    """
    if missing := missing_programs():
        raise RuntimeError(
            f"{', '.join(missing)} must be installed: apt-get install {' '.join(PACKAGES)}"
        )
    for start in range(1, _STARTS + 1):
        with ExitStack() as daemons:
            try:
                server = _start(folder / str(start), daemons)
            except RuntimeError:
                # Another program may have taken a port between its choice and its use.
                if start == _STARTS:
                    raise
                continue
            yield server
            return


def _start(folder: Path, daemons: ExitStack) -> S3Server:
    folder.mkdir(parents=True)
    cluster = _Cluster(folder, uuid.uuid4(), _free_ports(3))
    cluster.write_settings()
    cluster.make_keyrings()
    cluster.make_monitor()
    daemons.enter_context(cluster.daemon("ceph-mon", "-i", "a"))
    cluster.make_object_store()
    daemons.enter_context(cluster.daemon("ceph-osd", "-i", "0"))
    process = daemons.enter_context(cluster.daemon("radosgw", "-n", "client.rgw"))
    endpoint = f"http://127.0.0.1:{cluster.gateway_port}"
    cluster.wait_for(endpoint, process)
    access_key, secret_key = secrets.token_hex(10).upper(), secrets.token_hex(20)
    cluster.make_user(access_key, secret_key)
    return S3Server(endpoint, access_key, secret_key)


@dataclass(frozen=True)
class _Cluster:
    folder: Path
    fsid: uuid.UUID
    ports: tuple[int, ...]

    @property
    def gateway_port(self) -> int:
        return self.ports[2]

    def write_settings(self) -> None:
        addresses = f"[v2:127.0.0.1:{self.ports[0]},v1:127.0.0.1:{self.ports[1]}]"
        (self.folder / "ceph.conf").write_text(
            f"""[global]
fsid = {self.fsid}
mon_host = {addresses}
run_dir = {self.folder}
admin_socket = {self.folder}/$name.asok
log_file = {self.folder}/$name.log
mon_cluster_log_file = {self.folder}/cluster.log
pid_file =
crash_dir = {self.folder}/crash
keyring = {self.folder}/keyring
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
[mon]
mon_data = {self.folder}/mon
mon_initial_members = a
mon_osd_full_ratio = 0.99
# A monitor on a disk that is 95 % full ends at once and without a word; ours needs a few megabytes.
mon_data_avail_crit = -1
mon_data_avail_warn = -1
[osd]
osd_data = {self.folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_journal =
osd_op_num_shards = 1
[client.rgw]
rgw_frontends = beast endpoint=127.0.0.1:{self.gateway_port}
rgw_data = {self.folder}/rgw
rgw_thread_pool_size = 64
rgw_enable_gc_threads = false
rgw_enable_lc_threads = false
rgw_enable_quota_threads = false
rgw_run_sync_thread = false
"""
        )

    def make_keyrings(self) -> None:
        keyring = str(self.folder / "keyring")
        rights = {
            "mon.": ("mon", "allow *"),
            "client.admin": ("mon", "allow *", "osd", "allow *", "mgr", "allow *"),
            "client.rgw": ("mon", "allow rwx", "osd", "allow rwx"),
            "osd.0": ("mon", "allow profile osd", "osd", "allow *"),
        }
        self._run("ceph-authtool", "--create-keyring", keyring)
        for name, capabilities in rights.items():
            pairs = zip(capabilities[::2], capabilities[1::2], strict=True)
            words = [word for pair in pairs for word in ("--cap", *pair)]
            self._run("ceph-authtool", keyring, "--gen-key", "-n", name, *words)

    def make_monitor(self) -> None:
        (self.folder / "mon").mkdir()
        monitors = str(self.folder / "monmap")
        addresses = f"[v2:127.0.0.1:{self.ports[0]},v1:127.0.0.1:{self.ports[1]}]"
        self._run(
            "monmaptool", "--create", "--fsid", str(self.fsid), "--addv", "a", addresses, monitors
        )
        keyring = str(self.folder / "keyring")
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)

    def make_object_store(self) -> None:
        (self.folder / "osd").mkdir()
        identity = str(uuid.uuid4())
        self._run("ceph", "osd", "new", identity)
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", identity)
        self._run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=localhost")

    def make_user(self, access_key: str, secret_key: str) -> None:
        self._run(
            *("radosgw-admin", "-n", "client.rgw", "user", "create", "--uid", "tests"),
            *("--display-name", "tests", "--access-key", access_key, "--secret-key", secret_key),
        )

    @contextmanager
    def daemon(self, program: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a server in the foreground; its own process is stopped at the end, by id."""
        output = (self.folder / f"{program}.out").open("wb")
        with output:
            process = subprocess.Popen(
                [program, *self._settings, *words, "-f"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._environment,
                # A Ctrl-C at the terminal must not end the server before the tests.
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def wait_for(self, endpoint: str, process: subprocess.Popen[bytes]) -> None:
        """Wait until the gateway answers anything, such as that strangers may not list."""
        deadline = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                if _answers(endpoint):
                    return
            time.sleep(_POLL_S)
        raise RuntimeError(f"The gateway must start. Received: {self._logs()}")

    def _logs(self) -> str:
        paths = sorted([*self.folder.glob("*.out"), *self.folder.glob("*.log")])
        return "\n".join(
            f"{path.name}: {path.read_text(errors='replace')[-2000:]}" for path in paths
        )

    @property
    def _settings(self) -> Sequence[str]:
        return ("-c", str(self.folder / "ceph.conf"))

    @property
    def _environment(self) -> dict[str, str]:
        # Test runs set variables for Python and AWS that are none of Ceph's business.
        return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}

    def _run(self, program: str, *words: str) -> None:
        settings = () if program in {"ceph-authtool", "monmaptool"} else self._settings
        command = f"{program} {' '.join(words)}"
        try:
            ended = subprocess.run(
                [program, *settings, *words],
                capture_output=True,
                text=True,
                timeout=_COMMAND_S,
                env=self._environment,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(
                f"{command} must end within {_COMMAND_S} s. Logs of the servers: {self._logs()}"
            ) from None
        if ended.returncode:
            raise RuntimeError(
                f"{command} must succeed. Received: {ended.returncode}, "
                f"{(ended.stderr or ended.stdout)[-2000:]}"
            )


def _answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True


def _free_ports(count: int) -> tuple[int, ...]:
    free: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            return tuple(free)
    raise RuntimeError(f"{count} ports of {_PORTS} must be free. Received: {len(free)}")
