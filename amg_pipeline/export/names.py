"""Names of files for images: readable, below DEST whatever an image's id, and never twice."""

from __future__ import annotations

import hashlib

_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
#: Signs that some file system, shell or URI reads as something else than a name.
_RESERVED = frozenset('%\\:*?"<>|#')
#: Bytes of one component, so that an ending still fits into the 255 that file systems take.
_MAX_BYTES = 200
_DIGEST_DIGITS = 16


def safe_path(image_id: str) -> str:
    """Write an image's id as a relative path, different for different ids.

    What is no plain name is percent-encoded: `../a` becomes `%2E%2E/a`.
    """
    return "/".join(map(_safe_component, image_id.split("/")))


def _safe_component(name: str) -> str:
    if name in {"", ".", ".."}:
        # No other component becomes a lone percent sign.
        return name.replace(".", "%2E") or "%"
    written = "".join(
        sign
        if sign.isprintable() and sign not in _RESERVED
        else "".join(f"%{byte:02X}" for byte in sign.encode())
        for sign in name
    )
    # Names that begin like unfinished writes would not be listed, others would be hidden.
    if written.startswith("."):
        written = "%2E" + written[1:]
    data = written.encode()
    if len(data) <= _MAX_BYTES:
        return written
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{data[:_MAX_BYTES].decode(errors='ignore')}%{digest}"


class FileNames:
    """Names like the images' own without their endings, as tools expect them beside the images.

    Where `a.jpg` and `a.png` are both there, the first is called `a` and the second `a.png`. All
    names are remembered, in some 100 bytes an image.
    """

    def __init__(self) -> None:
        self._taken: set[bytes] = set()

    def choose(self, image_id: str) -> tuple[str, bool]:
        """Choose the name of an image's file, without an ending.

        Returns:
            The relative path, and whether it is the image's own name without its ending.
        """
        path = safe_path(image_id)
        stem = without_ending(path)
        name, number = stem, 1
        while (digest := hashlib.sha256(name.encode()).digest()[:_DIGEST_DIGITS]) in self._taken:
            name = path if number == 1 else f"{path}%{number}"
            number += 1
        self._taken.add(digest)
        return name, name == stem


def without_ending(path: str) -> str:
    """Take the ending of an image's file off a name; any other ending is part of the name."""
    for ending in _IMAGE_ENDINGS:
        if path.lower().endswith(ending) and not path.lower().endswith("/" + ending):
            return path[: -len(ending)]
    return path
