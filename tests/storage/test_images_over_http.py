"""Images behind a real HTTP server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from amg_pipeline.errors import ImageFetchError, ImageNotFoundError, TransientStorageError
from amg_pipeline.records import ImageRef
from amg_pipeline.storage.images import load_image
from tests.storage.doubles import EAGER
from tests.storage.pictures import encode, photo

PNG = encode(photo(), "PNG")


class Handler(BaseHTTPRequestHandler):
    """Answers by the path; `/flaky` fails twice first, `/cut` ends its body early."""

    protocol_version = "HTTP/1.1"
    failures = 0

    def do_GET(self) -> None:
        status = {"/a%20b.png": 200, "/secret": 403, "/cut": 200, "/down": 503}.get(self.path, 404)
        if self.path == "/flaky":
            status = 503 if Handler.failures > 0 else 200
            Handler.failures -= 1
        body = PNG if status == 200 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/cut":
            body = body[:20]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def load(uri: str) -> tuple[int, ...]:
    return load_image(ImageRef("a", uri), retry=EAGER).pixels.shape


def test_image_over_http(site: str) -> None:
    assert load(f"{site}/a%20b.png") == (16, 24, 3)


def test_throttling_is_retried(site: str) -> None:
    Handler.failures = 2
    assert load(f"{site}/flaky") == (16, 24, 3)


@pytest.mark.parametrize(
    ("path", "error", "reason"),
    [
        ("absent", ImageNotFoundError, "nothing is there"),
        ("secret", ImageFetchError, "HTTP 403"),
        ("down", TransientStorageError, "HTTP 503"),
        ("cut", TransientStorageError, "ClientPayloadError"),
    ],
)
def test_answers_that_are_no_image(
    site: str, path: str, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason) as caught:
        load(f"{site}/{path}")
    assert type(caught.value) is error
    assert "127.0.0.1" not in str(caught.value)
