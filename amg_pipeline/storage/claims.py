"""Creating an object once on stores that cannot: which of several writers may, by a claim.

Some stores take a conditional PUT, answer 200 and overwrite. There, whoever wants to create an
object first puts a claim with a mark of its own, waits until every writer that may have seen
neither object nor claim is through, and writes the object only if the claim is still its own: the
last claim wins. The object is written by the winner alone, so that no reader ever takes up one that
another replaces.

This holds as long as a PUT takes effect within the time that is waited. A write that is under way
for longer may replace another's object; `amg verify` finds out whether it made a difference.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from amg_pipeline.errors import CommitConflictError, StorageError, TransientStorageError

#: How many waits a loser leaves the winner before it takes the winner for dead and claims anew.
_PATIENCE = 10
_ROUNDS = 3


#: Runs an operation with retries, given a verb and a key for messages.
Run = Callable[[str, str, Callable[[], Any]], Any]


class _Files(Protocol):
    def read(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def exists(self, key: str) -> bool: ...
    def remove(self, key: str) -> None: ...


def create_by_claim(
    files: _Files,
    key: str,
    data: bytes,
    *,
    claim_key: str,
    run: Run,
    settle_s: float,
) -> None:
    """Write an object if none has this key, on a store that ignores conditions.

    Args:
        files: The store's raw operations; what it has written, it reads at once.
        key: The object's key.
        data: Its bytes.
        claim_key: Where the claim for `key` lies; it is removed in the end.
        run: Runs an operation with retries, given a verb and a key for messages.
        settle_s: Seconds within which a PUT takes effect.

    Raises:
        CommitConflictError: If the object exists, for instance as another's claim won.
        TransientStorageError: If others' claims won, and none of them ever wrote.
    """
    mark = secrets.token_bytes(16)

    def refuse_existing() -> None:
        if files.exists(key):
            raise FileExistsError

    def write_if_ours() -> bool:
        refuse_existing()
        is_ours = _read_claim(files, claim_key) == mark
        if is_ours:
            # Checked just before, in each attempt: others may have waited out a failed one.
            files.put(key, data)
        return is_ours

    run("create", key, refuse_existing)
    for _ in range(_ROUNDS):
        run("claim", key, lambda: files.put(claim_key, mark))
        for _ in range(_PATIENCE):
            time.sleep(settle_s)
            try:
                is_written = run("create", key, write_if_ours)
            except CommitConflictError:
                _remove_claim(files, claim_key, run)
                raise
            if is_written:
                _remove_claim(files, claim_key, run)
                return
    raise TransientStorageError(
        f"Create {key}: one of the drivers that start here at once must write it. Received: none "
        "did. Give the same command again"
    )


def _remove_claim(files: _Files, claim_key: str, run: Run) -> None:
    """Remove a claim, whosever it is: once the object is there, none counts any more."""
    with suppress(StorageError, FileNotFoundError):
        run("remove", claim_key, lambda: files.remove(claim_key))


def _read_claim(files: _Files, claim_key: str) -> bytes | None:
    try:
        return files.read(claim_key)
    except FileNotFoundError:
        return None
