from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import urlsplit

import pytest

from tests.s3.faulty_proxy import FAULTS, Fault, faulty_proxy

BODY = bytes(range(200))


class Upstream(ThreadingHTTPServer):
    daemon_threads = True
    seen: list[tuple[str, str, bytes]]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Host"], body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Host"], b""))
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY if self.command == "GET" else b"")

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    server = Upstream(("127.0.0.1", 0), Handler)
    server.seen = []
    thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def endpoint_of(server: Upstream) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def ask(
    endpoint: str, method: str, path: str, body: bytes = b"", *, timeout: float = 10.0
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=timeout)
    try:
        connection.request(method, path, body, {"Host": "signed.example"})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_without_faults_all_passes_unchanged(upstream: Upstream) -> None:
    with faulty_proxy(endpoint_of(upstream)) as proxy:
        assert ask(proxy.endpoint, "PUT", "/b/k?x=1", b"data") == (200, b"")
        assert ask(proxy.endpoint, "GET", "/b/k") == (200, BODY)
        assert ask(proxy.endpoint, "HEAD", "/b/k") == (200, b"")
        assert [(r.method, r.target, r.fault, r.status) for r in proxy.requests] == [
            ("PUT", "/b/k?x=1", None, 200),
            ("GET", "/b/k", None, 200),
            ("HEAD", "/b/k", None, 200),
        ]
    assert upstream.seen[0] == ("/b/k?x=1", "signed.example", b"data")


@pytest.mark.parametrize(
    ("fault", "outcome", "arrives"),
    [
        ("slow_down", 503, False),
        ("internal_error", 500, False),
        ("error_after", 500, True),
        ("reset_before", ConnectionError, False),
        ("reset_after", ConnectionError, True),
        ("stall_before", TimeoutError, False),
        ("stall_after", TimeoutError, True),
        ("slow_body", 200, True),
        ("cut_body", http.client.IncompleteRead, True),
        ("short_body", 200, True),
    ],
)
def test_each_fault(
    upstream: Upstream, fault: Fault, outcome: int | type[Exception], arrives: bool
) -> None:
    with faulty_proxy(endpoint_of(upstream), slow_s=0.4) as proxy:
        proxy.inject(fault, method="GET", contains="/k")
        started = time.monotonic()
        if isinstance(outcome, int):
            status, body = ask(proxy.endpoint, "GET", "/b/k")
            assert status == outcome
            assert (len(body) < len(BODY)) == (fault != "slow_body")
            assert (time.monotonic() - started > 0.3) == (fault == "slow_body")
        else:
            with pytest.raises(outcome):
                ask(proxy.endpoint, "GET", "/b/k", timeout=0.5)
        assert bool(upstream.seen) == arrives
        assert ask(proxy.endpoint, "GET", "/b/k") == (200, BODY)
        assert proxy.faults() == Counter({fault: 1})


def faults_of(upstream: Upstream, seed: int, order: list[int]) -> dict[int, Fault | None]:
    rates: dict[Fault, float] = {"slow_down": 0.3, "internal_error": 0.3}
    with faulty_proxy(endpoint_of(upstream), seed=seed, rates=rates) as proxy:
        for number in order:
            ask(proxy.endpoint, "GET", f"/b/{number}")
        return {int(r.target.rpartition("/")[2]): r.fault for r in proxy.requests}


def test_faults_follow_from_the_seed_and_not_from_the_order(upstream: Upstream) -> None:
    first = faults_of(upstream, 3, list(range(30)))
    assert faults_of(upstream, 3, list(reversed(range(30)))) == first
    assert faults_of(upstream, 4, list(range(30))) != first
    assert set(first.values()) == {None, "slow_down", "internal_error"}


def test_unknown_faults_are_refused(upstream: Upstream) -> None:
    rates: dict = {"slowdown": 0.1}
    with pytest.raises(ValueError, match="slow_down"), faulty_proxy("http://x", rates=rates):
        pass
    assert len(FAULTS) == 10
