"""What a store is told of an object, so that a browser shows a page and does not download it."""

from __future__ import annotations

from pathlib import PurePosixPath

#: By the endings of what is meant to be opened by a browser; of the rest nothing is said.
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


def content_type_of(key: str) -> str | None:
    """Tell the media type of an object by its ending; None where a browser has no use for it."""
    return _TYPES.get(PurePosixPath(key).suffix.lower())
