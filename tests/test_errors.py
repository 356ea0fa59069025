"""The exception tree: complete in its drawing, and able to cross processes."""

from __future__ import annotations

import pickle
import re

import pytest

from amg_pipeline import errors

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def _drawn_tree() -> dict[str, str | None]:
    """Read the parent of each class from the drawing in the module's docstring."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)(\w+Error)\b", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else None
    return parents


def test_drawing_shows_every_class_below_its_parent() -> None:
    actual = {
        name: value.__base__.__name__ if value is not errors.AmgPipelineError else None
        for name, value in CLASSES.items()
    }

    assert _drawn_tree() == actual


@pytest.mark.parametrize("name", CLASSES)
def test_error_survives_pickling(name: str) -> None:
    error = CLASSES[name]("expected this. Received: that")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert copy.args == error.args
    assert str(copy) == "expected this. Received: that"


@pytest.mark.parametrize("name", CLASSES)
def test_error_is_documented(name: str) -> None:
    assert CLASSES[name].__doc__


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ImageDecodeError, "decode_error"),
        (errors.ImageTooLargeError, "too_large"),
        (errors.ImageFetchError, "fetch_error"),
        (errors.ImageNotFoundError, "fetch_error"),
    ],
)
def test_image_error_has_the_status_of_its_row(error: type[errors.ImageError], status: str) -> None:
    assert error("broken").status == status
