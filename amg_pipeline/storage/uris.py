"""How addresses of files and objects are read: plain paths, and `scheme://` URIs.

A plain path is taken as it is, whatever it contains. fsspec's own parsing is avoided on purpose:
it splits an address at `::`, which may be part of a file's name.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
# To the last @ before the path: a password may hold one itself.
_USER_INFO = re.compile(r"(?<=://)[^/]*@")
#: Matches an address with `user:password@` in front of its host, or with a signature or token in
#: its query. RE2, which tables are searched with, reads it in the same way.
CREDENTIAL = (
    r"(?i)^(?:[a-z][a-z0-9+.\-]*://[^/]*:[^/]*@"
    r"|https?://[^?#]*\?(?:[^#]*&)?"
    r"(?:signature|sig|token|access_token|x-(?:amz|goog)-(?:signature|security-token))=)"
)
_LOCAL_SCHEMES = ("file", "local")
_WEB_SCHEMES = ("http", "https")
_MAGIC = re.compile(r"[*?\[]")


def scheme_of(uri: str) -> str | None:
    """Tell the scheme of a URI in lower case; None for a plain path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else None


def is_local(uri: str) -> bool:
    """Tell whether an address lies in this machine's file system."""
    scheme = scheme_of(uri)
    return scheme is None or scheme in _LOCAL_SCHEMES


def local_path(uri: str) -> str:
    """Turn a local address into a path.

    A `file://` URI may or may not be percent-encoded, depending on who wrote it: the text is
    taken literally where such a file exists, and decoded otherwise.
    """
    match = _SCHEME.match(uri)
    if match is None:
        return uri
    literal = uri[match.end() :]
    if "%" not in literal or os.path.lexists(literal):
        return literal
    return unquote(literal, errors="surrogateescape")


def path_to_uri(path: str) -> str:
    """Turn a local path into an address that survives as text.

    It is the path itself, unless its bytes are no valid UTF-8: then a percent-encoded
    `file://` URI.
    """
    return path if is_text(path) else "file://" + quote(os.fsencode(path))


def is_text(name: str) -> bool:
    """Tell whether a file name is valid Unicode, as a table or JSON needs it."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def absolute_uri(uri: str) -> str:
    """Write an address in the one way that names are compared by.

    A local one becomes independent of the working directory. A folder of an object store loses
    the slash at its end; web addresses are left alone, where it makes a difference.
    """
    if scheme_of(uri) in _WEB_SCHEMES:
        return uri
    match = _SCHEME.match(uri)
    if match and not is_local(uri):
        return match[0] + uri[match.end() :].rstrip("/")
    path = Path(local_path(uri)).expanduser().absolute()
    return path_to_uri(os.path.normpath(path))


def place_of(uri: str) -> str:
    """Tell the bucket or host of a URI, `s3://bucket`, without user info; of a path, nothing."""
    match = _SCHEME.match(uri)
    return redact(match[0] + uri[match.end() :].partition("/")[0]) if match else ""


def join_uri(base: str, key: str) -> str:
    """Append a relative key to an address."""
    if not key:
        return base
    return base + key if base.endswith("/") else f"{base}/{key}"


def split_parent(uri: str) -> tuple[str, str]:
    """Split an address into its folder and the last component.

    `s3://bucket/a/b.csv` gives `("s3://bucket/a", "b.csv")`, `/b.csv` gives `("/", "b.csv")`.
    """
    match = _SCHEME.match(uri)
    head, separator, name = uri.rpartition("/")
    if not separator or (match and len(head) < match.end()):
        return (uri if match else "."), name if not match else ""
    return head or "/", name


def split_glob(uri: str) -> tuple[str, str]:
    """Split an address before its first component with a wildcard.

    Returns:
        The fixed part, and the pattern below it; the pattern is empty where there is no
        wildcard. In web addresses `?` starts a query and is no wildcard.
    """
    match = _SCHEME.match(uri)
    start = match.end() if match else 0
    magic = re.compile(r"\*") if scheme_of(uri) in _WEB_SCHEMES else _MAGIC
    # The host of a URI holds no wildcard, but an IPv6 address has brackets.
    position = uri.find("/", start) + 1 if match else 0
    found = magic.search(uri, position) if position or not match else None
    if found is None:
        return uri, ""
    cut = uri.rfind("/", 0, found.start())
    if cut < 0:
        return ".", uri
    return uri[:cut] or "/", uri[cut + 1 :]


def has_credential(uri: str) -> bool:
    """Tell whether an address has a password in front of its host, or a signature in its query."""
    return re.match(CREDENTIAL, uri) is not None


def redact(uri: str) -> str:
    """Remove what may be a credential: user info, and the query of a web address."""
    cleaned = _USER_INFO.sub("", uri)
    return cleaned.partition("?")[0] if scheme_of(uri) in _WEB_SCHEMES else cleaned
