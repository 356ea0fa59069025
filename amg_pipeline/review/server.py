"""A server of the review page, until it is ended."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

import uvicorn

from amg_pipeline.config import ImageSettings
from amg_pipeline.decisions.reviewer_log import ReviewerLog, check_reviewer
from amg_pipeline.errors import ConfigError
from amg_pipeline.review.app import make_app
from amg_pipeline.review.guard import HostNames, is_loopback
from amg_pipeline.review.pictures import Pictures
from amg_pipeline.review.session import ReviewSession
from amg_pipeline.storage.run_images import RunImages
from amg_pipeline.storage.uris import redact

_TOKEN_BYTES = 32
_LEAST_TOKEN = 16
#: Requests that are under way get so long to end.
_END_SECONDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewSettings:
    """How a run is offered.

    Attributes:
        reviewer: Whose decisions they are.
        host: What the server binds to.
        port: 0 for any that is free.
        token: What everybody must know; None for a random one, or none on loopback.
        images: Globs of image ids; empty for all.
        allowed_hosts: Names that the server has elsewhere.
        max_side: Pixels of the long side of a picture at most.

    Raises:
        ConfigError: If a value cannot be used.
    """

    reviewer: str
    host: str = "127.0.0.1"
    port: int = 0
    token: str | None = None
    images: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    max_side: int = 2048

    def __post_init__(self) -> None:
        check_reviewer(self.reviewer)
        if self.token is None:
            return
        if len(self.token) < _LEAST_TOKEN or not _is_plain(self.token):
            raise ConfigError(
                f"token must have at least {_LEAST_TOKEN} letters, digits, '-' or '_'. "
                f"Received: one of {len(self.token)} characters. Leave it out for a random one"
            )


def serve_review(output: str, settings: ReviewSettings, *, on_ready: Callable[[str], None]) -> None:
    """Serve the review page of a run until SIGINT or SIGTERM.

    Args:
        output: The run's output.
        settings: How it is offered.
        on_ready: Called with the page's address as soon as it answers.

    Raises:
        ConfigError: If `output` is no run, has no images, or the address cannot be used.
        StorageError: If the run cannot be read, or decisions cannot be written.
        KeyboardInterrupt: On SIGINT.
    """
    images = RunImages.open(output, globs=settings.images)
    if not len(images):
        raise ConfigError(
            f"OUTPUT must have images to review. Received: {redact(output)}, of which no shard is "
            "done, or no image matches"
        )
    token = settings.token
    if token is None and not is_loopback(settings.host):
        token = secrets.token_urlsafe(_TOKEN_BYTES)
    with (
        _bind(settings.host, settings.port) as bound,
        ReviewerLog.open(output, settings.reviewer) as log,
    ):
        session = ReviewSession(images, log, reviewer=settings.reviewer, title=redact(output))
        run_settings = ImageSettings.model_validate(images.plan.config["images"])
        app = make_app(
            session,
            Pictures(run_settings, max_side=settings.max_side),
            names=HostNames(settings.host, frozenset(map(str.lower, settings.allowed_hosts))),
            token=token,
        )
        on_ready(_address(settings.host, bound.getsockname()[1], token))
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=_END_SECONDS,
        )
        uvicorn.Server(config).run(sockets=[bound])


def _bind(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            # The page answers from the moment that its address is printed.
            bound.listen()
        except OSError:
            bound.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        raise ConfigError(
            f"HOST and PORT must be free on this machine. Received: {host} and {port}: {error}"
        ) from error
    return bound


def _address(host: str, port: int, token: str | None) -> str:
    """Write the address that a browser opens."""
    shown = host
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if number.is_unspecified:
            shown = socket.gethostname()
        elif number.version == 6:
            shown = f"[{host}]"
    query = f"?token={quote(token)}" if token else ""
    return f"http://{shown}:{port}/{query}"


def _is_plain(token: str) -> bool:
    return token.isascii() and all(sign.isalnum() or sign in "-_" for sign in token)
