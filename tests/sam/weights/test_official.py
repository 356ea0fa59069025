"""Downloads from a real HTTP server on the loopback interface that misbehaves on demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from amg_pipeline.errors import ConfigError, WeightsError
from amg_pipeline.sam.weights import OFFICIAL_WEIGHTS, cached_weights, fetch
from amg_pipeline.sam.weights.official import OfficialWeights, default_cache_dir

NAME = "sam_vit_b_01ec64.pth"
# Large enough that a cut leaves more on disk than network buffers hold.
BODY = bytes(range(256)) * 8_000


class Server(ThreadingHTTPServer):
    """Serves `body`; the switches say how badly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.knows_ranges = True
        self.announces_ranges = True
        self.announces_length = True
        self.cut_after: int | None = None
        self.status = 200
        self.requests: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/{NAME}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that hang up."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, *, with_body: bool) -> None:
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append((self.command, wanted))
        if server.status != 200:
            self.send_response(server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = server.body
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        if match and server.knows_ranges:
            start, stop = int(match[1]), min(int(match[2] or len(body)) + 1, len(body))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            body = body[start:stop]
        else:
            self.send_response(200)
        if server.announces_ranges:
            self.send_header("Accept-Ranges", "bytes")
        if server.announces_length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            self.wfile.write(body[: server.cut_after])
            if server.cut_after is not None and server.cut_after < len(body):
                self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect BODY, in blocks small enough that there are many."""
    expected = OfficialWeights(
        file_name=NAME, size_bytes=len(BODY), sha256=hashlib.sha256(BODY).hexdigest()
    )
    monkeypatch.setitem(OFFICIAL_WEIGHTS, "vit_b", expected)
    monkeypatch.setattr("amg_pipeline.sam.weights.official._BLOCK_BYTES", 100_000)


def gets(server: Server) -> list[str | None]:
    return [wanted for command, wanted in server.requests if command == "GET"]


def test_fetch_downloads_with_progress_in_one_request(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    path = fetch("vit_b", tmp_path / "cache", url=server.url, progress=lambda *s: seen.append(s))
    assert path == tmp_path / "cache" / NAME
    assert path.read_bytes() == BODY
    assert [have for have, _ in seen] == sorted({have for have, _ in seen})
    assert seen[-1] == (len(BODY), len(BODY))
    assert len(seen) >= 10
    assert gets(server) == [None]
    assert not path.with_name(f"{NAME}.part").exists()


def test_fetch_of_a_cached_file_asks_nobody(server: Server, tmp_path: Path) -> None:
    fetch("vit_b", tmp_path, url=server.url)
    server.requests.clear()
    assert fetch("vit_b", tmp_path, url=server.url) == cached_weights("vit_b", tmp_path)
    assert server.requests == []


def test_fetch_goes_on_where_a_cut_connection_stopped(server: Server, tmp_path: Path) -> None:
    server.cut_after = 1_500_000
    with pytest.raises(WeightsError, match=r"Received: \d+, then .*same command again"):
        fetch("vit_b", tmp_path, url=server.url)
    kept = (tmp_path / f"{NAME}.part").stat().st_size
    assert 500_000 < kept <= 1_500_000
    server.cut_after = None
    server.requests.clear()
    assert fetch("vit_b", tmp_path, url=server.url).read_bytes() == BODY
    ranges = gets(server)
    assert ranges[0] is not None
    assert ranges[0].startswith(f"bytes={kept}-")


@pytest.mark.parametrize("announces", [False, True])
def test_fetch_starts_over_when_the_server_ignores_ranges(
    announces: bool, server: Server, tmp_path: Path
) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:300_000])
    server.knows_ranges = False
    server.announces_ranges = announces
    assert fetch("vit_b", tmp_path, url=server.url).read_bytes() == BODY


def test_fetch_without_an_announced_length_notices_a_cut(server: Server, tmp_path: Path) -> None:
    server.announces_length = server.announces_ranges = server.knows_ranges = False
    server.cut_after = 1_500_000
    with pytest.raises(WeightsError, match="Received: 1500000, then the end of the stream"):
        fetch("vit_b", tmp_path, url=server.url)
    server.cut_after = None
    assert fetch("vit_b", tmp_path, url=server.url).read_bytes() == BODY


def test_fetch_drops_a_partial_file_that_is_too_long(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(bytes(len(BODY) + 1))
    assert fetch("vit_b", tmp_path, url=server.url).read_bytes() == BODY


def test_fetch_finishes_a_partial_file_that_is_complete(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(BODY)
    assert fetch("vit_b", tmp_path, url=server.url).read_bytes() == BODY
    assert gets(server) == []


def test_fetch_of_wrong_bytes_removes_them(server: Server, tmp_path: Path) -> None:
    server.body = BODY[:-1] + b"?"
    wrong = hashlib.sha256(server.body).hexdigest()
    with pytest.raises(WeightsError, match=f"{wrong}.*was removed"):
        fetch("vit_b", tmp_path, url=server.url)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == []
    server.body = BODY
    assert fetch("vit_b", tmp_path, url=server.url).read_bytes() == BODY


def test_fetch_of_another_size_downloads_nothing(server: Server, tmp_path: Path) -> None:
    server.body = BODY[:-1]
    with pytest.raises(WeightsError, match=f"of {len(BODY)} bytes.*one of {len(BODY) - 1}"):
        fetch("vit_b", tmp_path, url=server.url)
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize(
    ("status", "reason"),
    [(404, "nothing there"), (410, "nothing"), (500, "ResponseError 500"), (403, "Error 403")],
)
def test_fetch_of_a_refused_request_is_reported(
    status: int, reason: str, server: Server, tmp_path: Path
) -> None:
    server.status = status
    with pytest.raises(WeightsError, match=reason):
        fetch("vit_b", tmp_path, url=server.url)


def test_fetch_without_a_server_is_reported(tmp_path: Path) -> None:
    unused = Server()
    unused.server_close()
    with pytest.raises(WeightsError, match="Received: 0, then ClientConnector"):
        fetch("vit_b", tmp_path, url=unused.url)


def test_fetch_from_an_object_store(tmp_path: Path) -> None:
    import fsspec

    with fsspec.open(f"memory://mirror/{NAME}", "wb") as file:
        file.write(BODY)
    (tmp_path / f"{NAME}.part").write_bytes(BODY[:300_000])
    path = fetch("vit_b", tmp_path, url=f"memory://mirror/{NAME}")
    assert path.read_bytes() == BODY


def test_fetch_at_the_same_time_downloads_once(server: Server, tmp_path: Path) -> None:
    results: list[bytes] = []

    def run() -> None:
        results.append(fetch("vit_b", tmp_path, url=server.url).read_bytes())

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [BODY] * 3
    assert gets(server) == [None]


def test_fetch_of_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"vit_b, vit_l, vit_h.*'tiny'"):
        fetch("tiny", tmp_path)


def test_cached_weights_before_fetch_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="amg weights fetch vit_l"):
        cached_weights("vit_l", tmp_path)


def test_default_cache_dir_is_the_users() -> None:
    assert default_cache_dir().name == "weights"
    assert default_cache_dir().is_absolute()


@pytest.mark.parametrize("variant", ["vit_l", "vit_h"])
def test_official_weights_are_described(variant: str) -> None:
    weights = OFFICIAL_WEIGHTS[variant]
    assert weights.url == (f"https://dl.fbaipublicfiles.com/segment_anything/{weights.file_name}")
    assert re.fullmatch("[0-9a-f]{64}", weights.sha256)
