"""The place of a page: a folder or prefix that holds one page of this program, and no other's."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from amg_pipeline.errors import ConfigError
from amg_pipeline.report.cards import CARD_FILE
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.uris import absolute_uri, redact

PAGE = "index.html"
ICON = "images/icon.svg"
#: What tells a page of ours from any other.
MARK = '<meta name="generator" content="amg_pipeline">'
#: The mark lies in the first so many bytes.
_HEAD_BYTES = 1024
_PICTURES = "images/"

_ICON = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">
<rect width="32" height="32" rx="7" fill="#16324f"/>
<g fill-opacity=".8" stroke-width="1.5">
<circle cx="13" cy="14" r="8" fill="#4da3ff" stroke="#cfe6ff"/>
<rect x="14" y="13" width="12" height="12" rx="3" fill="#ffb454" stroke="#ffe6c2"/>
</g>
</svg>
"""


class PageFolder:
    """Writes a page with its pictures; a context manager.

    An earlier page stays whole and is shown until the new one takes its place in one step; what
    only the earlier one had is removed then. Nothing else is touched.

    Args:
        uri: A local path, or any URI that fsspec knows; made if it is missing.

    Raises:
        ConfigError: If something is there, but no page of this program.
        StorageError: If it cannot be read.
    """

    def __init__(self, uri: str) -> None:
        self._uri = absolute_uri(uri)
        self._destination = Destination.open_folder(uri, overwrite=True)
        self._store = ObjectStore.open(self._uri)
        self._refuse_foreign()
        self._written = {ICON}

    def __enter__(self) -> Self:
        self._destination.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._destination.__exit__(kind, error, traceback)

    def begin(self) -> None:
        """Write a first small file, to find out whether the place can be written to.

        Raises:
            StorageError: If it cannot.
        """
        self._destination.put(ICON, _ICON)
        self._destination.flush()

    def put(self, files: Mapping[str, bytes]) -> None:
        """Write pictures, now or soon.

        Args:
            files: By their names, which match `CARD_FILE`.

        Raises:
            StorageError: If an earlier one could not be written.
        """
        for name, data in files.items():
            self._written.add(_PICTURES + name)
            self._destination.put(_PICTURES + name, data)

    def finish(self, page: str) -> None:
        """Write the page, which makes it and its pictures the ones that are shown.

        Raises:
            StorageError: If something could not be written.
        """
        self._destination.flush()
        self._destination.put(PAGE, page.encode("utf-8"))
        self._destination.flush()
        stale = [
            info.key
            for info in self._store.list(_PICTURES)
            if _is_picture(info.key) and info.key not in self._written
        ]
        for key in stale:
            self._store.remove(key)

    def _refuse_foreign(self) -> None:
        try:
            is_ours = MARK.encode() in self._store.read(PAGE)[:_HEAD_BYTES]
            foreign = PAGE
        except FileNotFoundError:
            # Nothing, or what a writer left that was killed before its page was complete.
            keys = (info.key for info in self._store.list() if not _is_picture(info.key))
            foreign = next(keys, "")
            is_ours = not foreign
        if not is_ours:
            raise ConfigError(
                "DEST must be empty or hold an earlier page of this program. "
                f"Received: {redact(self._uri)}, which has {foreign!r}. Choose another place"
            )


def _is_picture(key: str) -> bool:
    name = key.removeprefix(_PICTURES)
    return key == ICON or (key != name and CARD_FILE.fullmatch(name) is not None)
