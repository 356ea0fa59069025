"""Who may ask what: the checks that stand before every request.

- The `Host` must be one of this server's names, or a page of another site, whose name now points to
  this machine, could read everything (DNS rebinding).
- Requests that a page of another origin causes are refused, whatever they ask for; so are writes
  that are not JSON, which no form can send.
- With a token, nothing is answered without it. It comes once in the address, is moved to a cookie
  that scripts cannot read, and is compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: A change of all masks of an image fits many times.
_MOST_BODY_BYTES = 2**22
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_READS = frozenset({"GET", "HEAD"})


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches a server that binds to a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class HostNames:
    """The names that a server answers to.

    Attributes:
        bound: What it binds to.
        extra: Names that it has elsewhere, for instance behind a proxy.
    """

    bound: str
    extra: frozenset[str] = frozenset()

    def accepts(self, header: str) -> bool:
        """Tell whether a `Host` header names this server; the port is of no matter (tunnels)."""
        try:
            host = urlsplit(f"//{header}").hostname
        except ValueError:
            return False
        if host is None or any(sign in header for sign in "@/\\?#"):
            return False
        if host in self.extra or is_loopback(host):
            return True
        return not is_loopback(self.bound) and self._is_own(host)

    def _is_own(self, host: str) -> bool:
        own = socket.gethostname().lower()
        if host in (self.bound.lower(), own, own.partition(".")[0]):
            return True
        try:
            # A number cannot be made to point elsewhere.
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True


class Guard:
    """ASGI middleware; see this module.

    Args:
        app: What is guarded.
        names: The server's names.
        token: What everybody must know; None for nothing.
    """

    def __init__(self, app: ASGIApp, *, names: HostNames, token: str | None = None) -> None:
        self._app = app
        self._names = names
        self._token = token
        # Of several servers on one machine, each has a cookie of its own.
        digest = hashlib.sha256((token or "").encode()).hexdigest()[:8]
        self._cookie = f"amg_review_{digest}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            # Nothing here speaks WebSocket.
            await send({"type": "websocket.close", "code": 1008})
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        answer = self._refuse(scope)
        await (answer or self._app)(scope, receive, send_guarded)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._names.accepts(hosts[0]):
            return _say(421, "This server goes by another name; see `amg review --allow-host`.")
        is_write = scope["method"] not in _READS
        if not _is_same_origin(headers, hosts[0], scope, is_write=is_write):
            return _say(403, "Only the review page itself may ask for this.")
        if is_write and (answer := _refuse_body(headers)) is not None:
            return answer
        return self._refuse_stranger(scope, headers)

    def _refuse_stranger(self, scope: Scope, headers: Headers) -> Response | None:
        if self._token is None:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[-1]
        if scope["path"] == "/" and self._is_token(given):
            answer = RedirectResponse("/", status_code=303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
            return answer
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_token(bearer) or any(map(self._is_token, self._cookies(headers))):
            return None
        return _say(401, "Open the address that `amg review` printed, with its token.")

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._token or "").encode())

    def _cookies(self, headers: Headers) -> Iterable[str]:
        for header in headers.getlist("cookie"):
            for pair in header.split(";"):
                name, _, value = pair.strip().partition("=")
                if name == self._cookie:
                    yield value


def _is_same_origin(headers: Headers, host: str, scope: Scope, *, is_write: bool) -> bool:
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return False
    # Browsers say who asks; a page of another port of this machine counts as another.
    site = headers.get("sec-fetch-site", "same-origin")
    if site in ("same-origin", "none"):
        return True
    is_visit = scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
    return is_visit and not is_write


def _refuse_body(headers: Headers) -> Response | None:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return _say(415, "A write must be JSON.")
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal()):
        return _say(411, "A write must say its length.")
    if int(length) > _MOST_BODY_BYTES:
        return _say(413, f"A write may have {_MOST_BODY_BYTES} bytes.")
    return None


def _say(status: int, text: str) -> Response:
    return PlainTextResponse(f"{text}\n", status, {"cache-control": "no-store"})
