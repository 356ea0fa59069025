"""What an error of a disk or of a store's client says: its class, code, number and HTTP status.

Errors of optional packages (aiohttp, botocore, gcsfs, azure) are read by their attributes, so that
none of these packages is imported here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

#: aiohttp gives a body that breaks off the code 400, which the server never sent.
_MALFORMED_ANSWERS = frozenset({"BadHttpMessage"})


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Give an error and what it was raised from, the outermost first."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def has_base(link: BaseException, names: frozenset[str]) -> bool:
    """Tell whether an error is of one of these classes, or of one below."""
    return any(base.__name__ in names for base in type(link).__mro__)


def errno_of(link: BaseException) -> int | None:
    """Tell the operating system's number of an error."""
    return link.errno if isinstance(link, OSError) else None


def _response(link: BaseException) -> dict[str, Any]:
    response = getattr(link, "response", None)
    return response if isinstance(response, dict) else {}


def code_of(link: BaseException) -> str | None:
    """Tell the store's own code of an error: `NoSuchBucket`, `SlowDown`."""
    error: Any = _response(link).get("Error")
    code: Any = error.get("Code") if isinstance(error, dict) else getattr(link, "error_code", None)
    return code if isinstance(code, str) else None


def status_of(chain: list[BaseException]) -> int | None:
    """Tell the HTTP status of botocore's, aiohttp's, azure's or gcsfs's errors."""
    return next((status for link in chain for status in statuses_of(link)), None)


def statuses_of(link: BaseException) -> Iterator[int]:
    """Give what one error says of an HTTP status."""
    metadata = _response(link).get("ResponseMetadata")
    if isinstance(metadata, dict):
        yield from _valid_statuses(metadata.get("HTTPStatusCode"))
    if has_base(link, _MALFORMED_ANSWERS):
        return
    for name in ("status", "status_code", "code"):
        yield from _valid_statuses(getattr(link, name, None))


def _valid_statuses(value: object) -> Iterator[int]:
    if isinstance(value, int) and 100 <= value < 600:
        yield value


def describe(chain: list[BaseException]) -> str:
    """Name a fault without its host, address or time, which clients put into their messages."""
    code = next(filter(None, map(code_of, chain)), None)
    status = status_of(chain)
    number = next(filter(None, map(errno_of, chain)), None)
    # The last link is the client's own error, and says most where it has an HTTP status.
    name = code or type(chain[0] if status is None else chain[-1]).__name__
    if status is not None:
        return f"{name}, HTTP {status}"
    return f"{name}, {os.strerror(number)}" if number is not None else name
