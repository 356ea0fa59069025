"""Who may ask what."""

from __future__ import annotations

import hmac
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from amg_pipeline.review.guard import HostNames, is_loopback
from amg_pipeline.review.session import ReviewSession
from tests.review.conftest import HERE, make_guarded

TOKEN = "a" * 10 + "0123456789"
BODY = {"image_id": "a.png", "change": {"is_done": True}}
WRITE = "/api/images/0/changes"


@pytest.fixture
def stranger(session: ReviewSession) -> TestClient:
    """A browser that has not seen the token, at a server for everybody."""
    guarded = make_guarded(session, bound="0.0.0.0", token=TOKEN)
    return TestClient(guarded, base_url="http://10.0.0.5:8000", follow_redirects=False)


@pytest.mark.parametrize(
    ("bound", "header", "is_accepted"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LOCALHOST:9999", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "review.example:1", True),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "127.0.0.1.evil.example", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "10.0.0.5:8000", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "user@127.0.0.1", False),
        ("127.0.0.1", "[", False),
        ("0.0.0.0", "10.0.0.5:8000", True),
        ("0.0.0.0", "evil.example", False),
        ("gpu-box", "gpu-box:8000", True),
    ],
)
def test_server_answers_to_its_own_names_only(bound: str, header: str, is_accepted: bool) -> None:
    assert HostNames(bound, frozenset({"review.example"})).accepts(header) == is_accepted


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *[(host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")],
        *[(host, False) for host in ("0.0.0.0", "::", "192.168.1.2", "gpu-box", "")],
    ],
)
def test_loopback_is_told_from_the_rest(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


@pytest.mark.parametrize("path", ["/", "/api/run", "/api/images/0/picture", "/page/main.js"])
def test_other_name_gets_nothing(client: TestClient, path: str) -> None:
    assert client.get(path, headers={"host": "evil.example"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"origin": "http://evil.example"}, id="other-origin"),
        pytest.param({"origin": "http://127.0.0.1:3000"}, id="other-port"),
        pytest.param({"origin": "null"}, id="sandbox"),
        pytest.param({"sec-fetch-site": "cross-site"}, id="cross-site"),
        pytest.param({"sec-fetch-site": "same-site"}, id="same-site"),
    ],
)
def test_pages_of_others_can_neither_write_nor_read(
    client: TestClient, headers: dict[str, str]
) -> None:
    assert client.post(WRITE, json=BODY, headers=headers).status_code == 403
    assert client.get("/api/images/0/picture", headers=headers).status_code == 403
    assert client.get("/api/run").json()["num_done"] == 0


def test_link_to_the_page_from_elsewhere_may_be_followed(client: TestClient) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}

    assert client.get("/", headers=headers).status_code == 200
    assert client.get("/api/run", headers=headers).status_code == 403


def test_own_page_may_write(client: TestClient) -> None:
    headers = {"origin": HERE, "sec-fetch-site": "same-origin"}

    assert client.post(WRITE, json=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("what", "status"),
    [
        pytest.param({"data": {"image_id": "a.png"}}, 415, id="form"),
        pytest.param({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, id="text"),
        pytest.param(
            {"content": iter([b"{}"]), "headers": {"content-type": "application/json"}},
            411,
            id="without-length",
        ),
        pytest.param(
            {"content": b" " * (2**22 + 1), "headers": {"content-type": "application/json"}},
            413,
            id="too-long",
        ),
    ],
)
def test_write_that_is_no_short_json_is_refused(
    client: TestClient, what: dict[str, Any], status: int
) -> None:
    assert client.post(WRITE, **what).status_code == status


@pytest.mark.parametrize("path", ["/", "/api/run", "/page/main.js", "/?token=", "/?token=wrong"])
def test_stranger_gets_nothing(stranger: TestClient, path: str) -> None:
    answer = stranger.get(path)

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("cookie", ["", TOKEN[:-1], TOKEN + "x", "ü"])
def test_wrong_cookie_is_a_stranger(stranger: TestClient, cookie: str) -> None:
    first = stranger.get(f"/?token={TOKEN}")
    name = first.headers["set-cookie"].partition("=")[0]
    stranger.cookies.clear()

    headers = {"cookie": f"{name}={cookie}".encode()}
    assert stranger.get("/api/run", headers=headers).status_code == 401


def test_token_of_the_address_becomes_a_cookie(stranger: TestClient) -> None:
    answer = stranger.get(f"/?token={TOKEN}")

    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in answer.headers["set-cookie"]
    assert "samesite=lax" in answer.headers["set-cookie"].lower()
    assert stranger.get("/api/run").status_code == 200
    assert stranger.get("/api/run?token=wrong").status_code == 200


def test_token_may_come_as_a_header(stranger: TestClient) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}

    assert stranger.get("/api/run", headers=headers).status_code == 200


def test_token_is_compared_in_constant_time(
    stranger: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    compare = hmac.compare_digest

    def note(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", note)
    stranger.get("/?token=wrong")

    assert (b"wrong", TOKEN.encode()) in compared


def test_refusals_carry_the_headers_too(client: TestClient) -> None:
    answer = client.get("/api/run", headers={"host": "evil.example"})

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_websocket_is_refused(client: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect) as caught, client.websocket_connect("/"):
        pass

    assert caught.value.code == 1008
