"""An HTTP proxy on loopback that injects the faults of a bad day into the requests to a server.

    rates = {"slow_down": 0.05, "reset_after": 0.02}
    with faulty_proxy(server.endpoint, seed=7, rates=rates) as proxy:
        behind = server.through(proxy.endpoint)

Which request has which fault follows from the seed, the request line and how often that line came
before, so it does not depend on the order in which threads and processes ask. Headers pass
unchanged, Host included, so that signatures stay valid.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, get_args
from urllib.parse import urlsplit

Fault = Literal[
    "slow_down",  # 503 at once; the server never hears of it
    "internal_error",  # 500 at once; the server never hears of it
    "error_after",  # the server does it, the client is told 500
    "reset_before",  # the connection is reset; the server never hears of it
    "reset_after",  # the server does it, then the connection is reset without an answer
    "stall_before",  # no answer for `stall_s`; the server never hears of it
    "stall_after",  # the server does it; no answer for `stall_s`
    "slow_body",  # the answer's body comes in pieces over `slow_s`
    "cut_body",  # the connection ends in the middle of the body
    "short_body",  # the body ends early, and Content-Length says that this is all
]
FAULTS: tuple[Fault, ...] = get_args(Fault)

#: What a hop must not pass on, and what this proxy writes itself.
_OWN_HEADERS = frozenset({"connection", "content-length", "keep-alive", "transfer-encoding"})
_UPSTREAM_S = 60.0
_PIECES = 8


@dataclass(frozen=True)
class Request:
    """One request that came by: `status` is the server's own answer, None if it got none."""

    method: str
    target: str
    fault: Fault | None
    status: int | None

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and "list-type=2" in self.target


@dataclass
class _Order:
    fault: Fault
    method: str
    contains: str
    left: int


@dataclass
class FaultyProxy:
    """A running proxy.

    Attributes:
        endpoint: Where it listens.
        rates: Probability of each fault by name; may be replaced while it runs.
        requests: All that came by so far.
    """

    endpoint: str
    seed: int
    rates: Mapping[Fault, float]
    stall_s: float
    slow_s: float
    requests: list[Request] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _orders: list[_Order] = field(default_factory=list)

    def inject(self, fault: Fault, *, method: str = "", contains: str = "", times: int = 1) -> None:
        """Order a fault for the next requests with this method and this text in their target."""
        with self._lock:
            self._orders.append(_Order(fault, method, contains, times))

    def clear(self) -> None:
        """Forget the requests so far."""
        with self._lock:
            self.requests.clear()

    def calm(self) -> None:
        """Let all requests pass from now on, and forget those so far."""
        with self._lock:
            self.rates = {}
            self._orders.clear()
            self.requests.clear()

    def faults(self) -> Counter[str]:
        """How often each fault was injected."""
        with self._lock:
            return Counter(request.fault for request in self.requests if request.fault)

    def draw(self, method: str, target: str) -> Fault | None:
        """Choose the fault of a request that has come in."""
        with self._lock:
            self._seen[method, target] += 1
            for order in self._orders:
                if order.left and method.startswith(order.method) and order.contains in target:
                    order.left -= 1
                    return order.fault
            dice = random.Random(f"{self.seed} {method} {target} {self._seen[method, target]}")
            value = dice.random()
            for fault, rate in self.rates.items():
                value -= rate
                if value < 0:
                    return fault
        return None

    def record(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)


@contextmanager
def faulty_proxy(
    upstream: str,
    *,
    seed: int = 0,
    rates: Mapping[Fault, float] | None = None,
    stall_s: float = 60.0,
    slow_s: float = 1.0,
) -> Iterator[FaultyProxy]:
    """Run a proxy in threads of this process.

    Args:
        upstream: The server's endpoint, `http://127.0.0.1:PORT`.
        seed: Decides which request has which fault.
        rates: Probability of each fault; none of them by default.
        stall_s: How long a stalled answer is kept back before the connection ends.
        slow_s: How long a slow body takes.
    """
    if unknown := set(rates or {}) - set(FAULTS):
        raise ValueError(f"faults must be of {', '.join(FAULTS)}. Received: {unknown}")
    server = _Server(("127.0.0.1", 0), _Handler)
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    server.proxy = FaultyProxy(endpoint, seed, rates or {}, stall_s, slow_s)
    server.upstream = urlsplit(upstream).netloc
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.proxy
    finally:
        server.proxy.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    proxy: FaultyProxy
    upstream: str

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing where a client went away."""


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: str | None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    # Headers and body are two writes, and each answer must leave at once.
    disable_nagle_algorithm = True

    def handle_any(self) -> None:
        proxy = self.server.proxy
        body = self._read_body()
        fault = proxy.draw(self.command, self.path)
        answer: _Answer | None = None
        if fault not in {"slow_down", "internal_error", "reset_before", "stall_before"}:
            answer = self._ask(body)
        status = answer.status if answer else None
        proxy.record(Request(self.command, self.path, fault, status))
        self._answer(fault, answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any  # noqa: N815  # http.server's names

    def log_message(self, *args: object) -> None:
        """Keep the tests' output clean."""

    def _answer(self, fault: Fault | None, answer: _Answer | None) -> None:
        if fault == "slow_down":
            self._send_error(503, "SlowDown")
        elif fault in {"internal_error", "error_after"}:
            self._send_error(500, "InternalError")
        elif fault in {"reset_before", "reset_after"}:
            self._reset()
        elif answer is None or fault == "stall_after":
            self.server.proxy.stopping.wait(self.server.proxy.stall_s)
            self._reset()
        else:
            self._send(answer, fault)

    def _read_body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _ask(self, body: bytes) -> _Answer:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=_UPSTREAM_S)
        try:
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in {*_OWN_HEADERS, "expect"}:
                    connection.putheader(name, value)
            if body or "Content-Length" in self.headers:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            kept = [(n, v) for n, v in response.getheaders() if n.lower() not in _OWN_HEADERS]
            length = response.getheader("Content-Length")
            return _Answer(response.status, kept, response.read(), length)
        finally:
            connection.close()

    def _send(self, answer: _Answer, fault: Fault | None) -> None:
        body = answer.body
        if fault == "short_body":
            body = body[: len(body) // 2]
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        # HEAD tells the length of what it does not send.
        length = answer.length if self.command == "HEAD" else str(len(body))
        if length is not None and answer.status not in {204, 304}:
            self.send_header("Content-Length", length)
        self.end_headers()
        if fault == "cut_body" and body:
            self.wfile.write(body[: len(body) // 2])
            self._reset(abruptly=False)
        elif fault == "slow_body":
            step = -(-len(body) // _PIECES) or 1
            for start in range(0, len(body), step):
                self.server.proxy.stopping.wait(self.server.proxy.slow_s / _PIECES)
                self.wfile.write(body[start : start + step])
        else:
            self.wfile.write(body)

    def _send_error(self, status: int, code: str) -> None:
        body = (
            ""
            if self.command == "HEAD"
            else f"<Error><Code>{code}</Code><Message>x</Message></Error>"
        ).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self, *, abruptly: bool = True) -> None:
        self.close_connection = True
        with suppress(OSError):
            if abruptly:
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                # A shutdown, which socketserver does by itself, would send an orderly end.
                self.connection.close()
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
