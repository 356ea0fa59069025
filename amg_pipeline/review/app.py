"""The review page and its data over HTTP."""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from amg_pipeline.decisions.events import Change
from amg_pipeline.errors import (
    AmgPipelineError,
    CommitConflictError,
    ConfigError,
    ImageError,
)
from amg_pipeline.review.guard import Guard, HostNames
from amg_pipeline.review.pictures import Pictures
from amg_pipeline.review.session import ReviewSession

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_INDEX = "index.html"
#: A picture is asked for anew after a while, in case its file has changed.
_PICTURE_SECONDS = 300


class ChangeRequest(BaseModel):
    """A decision about an image, which is named so that it is surely meant.

    Attributes:
        image_id: The image's id.
        change: What is from now on.
    """

    model_config = ConfigDict(extra="forbid")

    image_id: str
    change: Change


def make_app(
    session: ReviewSession, pictures: Pictures, *, names: HostNames, token: str | None = None
) -> Guard:
    """Make the application.

    Args:
        session: What is reviewed.
        pictures: The images' pixels.
        names: The server's names.
        token: What everybody must know; None for nothing.

    Returns:
        An ASGI application.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    _add_page(app)
    _add_data(app, session, pictures)
    app.add_exception_handler(AmgPipelineError, _explain)
    app.add_exception_handler(IndexError, _explain)
    return Guard(app, names=names, token=token)


def _add_page(app: FastAPI) -> None:
    """Offer the files of the page, by their names alone."""
    folder = resources.files("amg_pipeline.review").joinpath("page")
    files = {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}

    def send(name: str) -> Response:
        kind = _KINDS.get("." + name.rpartition(".")[2])
        if name not in files or kind is None:
            return _to_json({"error": "There is no such file."}, status=404)
        return Response(files[name], media_type=kind, headers={"cache-control": "no-cache"})

    @app.get("/")
    def index() -> Response:
        return send(_INDEX)

    @app.get("/page/{name}")
    def file(name: str) -> Response:
        return send(name)


def _add_data(app: FastAPI, session: ReviewSession, pictures: Pictures) -> None:
    """Offer the run by numbers of images alone: no address, path or id is ever taken."""

    @app.get("/api/run")
    def run() -> Response:
        return _to_json(session.describe())

    @app.get("/api/images/{number}")
    def image(number: int) -> Response:
        return _to_json(session.show(number))

    @app.get("/api/images/{number}/picture")
    def picture(number: int) -> Response:
        data = pictures.draw(session.masks_of(number))
        headers = {"cache-control": f"private, max-age={_PICTURE_SECONDS}"}
        return Response(data, media_type="image/jpeg", headers=headers)

    @app.post("/api/images/{number}/changes")
    def change(number: int, asked: ChangeRequest) -> Response:
        return _to_json(session.change(number, asked.image_id, asked.change))

    @app.get("/api/next")
    def next_open(after: int, step: Literal["1", "-1"] = "1") -> Response:
        return _to_json({"number": session.next_open(after, step=int(step))})

    @app.get("/api/find")
    def find(text: str) -> Response:
        return _to_json({"images": session.find(text) if text else []})


def _explain(_request: Request, error: Exception) -> Response:
    """Turn an error into an answer that the page shows as text."""
    if isinstance(error, IndexError):
        return _to_json({"error": "There is no such image."}, status=404)
    kinds = ((CommitConflictError, 409), (ConfigError, 422), (ImageError, 404))
    status = next((number for kind, number in kinds if isinstance(error, kind)), 503)
    return _to_json({"error": str(error)}, status=status)


def _to_json(value: Any, *, status: int = 200) -> Response:
    data = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(
        data, status, media_type="application/json", headers={"cache-control": "no-store"}
    )
