"""Real S3 servers for the tests, and this process set up to find them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import s3fs
import stamina

from amg_pipeline.config import StorageSettings
from amg_pipeline.storage.connections import configure_stores
from tests.s3.ceph_gateway import ceph_gateway
from tests.s3.rclone_server import rclone_server
from tests.s3.s3_server import S3Server


@pytest.fixture(scope="session")
def ceph() -> Iterator[S3Server]:
    """Ceph's gateway: signatures are checked and conditions honoured."""
    # pytest's own folders have names too long for sockets.
    with (
        tempfile.TemporaryDirectory(prefix="ceph-", dir="/tmp") as folder,
        ceph_gateway(Path(folder)) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The server that ignores conditions."""
    with rclone_server(tmp_path_factory.mktemp("rclone")) as server:
        yield server


_last_used: list[S3Server] = []
UseServer = Callable[[S3Server], None]


@pytest.fixture
def use_server() -> Iterator[UseServer]:
    """Let this process find a server as a user would: by environment variables."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(_environment_of(server))


@pytest.fixture
def no_waits() -> Iterator[None]:
    """Retry at once, and no more often than in earnest."""
    with stamina.set_testing(True, attempts=1000, cap=True):
        yield


@contextmanager
def _environment_of(server: S3Server) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
            patch.delenv(name, raising=False)
        for name, value in server.environment().items():
            patch.setenv(name, value)
        # Its instances outlive a test, and read the environment once.
        if _last_used and _last_used[-1] != server:
            s3fs.S3FileSystem.clear_instance_cache()
        _last_used[:] = [server]
        yield
        configure_stores(StorageSettings())
