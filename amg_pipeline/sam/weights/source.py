"""Where weights lie: local paths and URIs brought onto this machine, and their digests."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import fsspec
import stamina
from fsspec.implementations.local import LocalFileSystem

from amg_pipeline.errors import ConfigError, StorageError, TransientStorageError, WeightsError

Source = str | os.PathLike[str]
_Result = TypeVar("_Result")

_BLOCK_BYTES = 2**20
#: Many workers fetch the same file when a run starts, and a store may throttle them.
_ATTEMPTS = 8
_RETRY_SECONDS = 180.0
_TRANSIENT_STATUSES = frozenset({408, 429})
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Errors of files and folders that say something about them.
_LASTING_FAULTS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
_INDEX = "model.safetensors.index.json"
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")

#: What a folder of weights may hold, best first: Hugging Face, then KerasHub, then old HF.
_FOLDER_FILES = ("model.safetensors", _INDEX, "model.weights.h5", "pytorch_model.bin")


def weights_sha256(variant: str, weights: Source | None) -> str:
    """Compute the SHA-256 of the file that a model takes its weights from.

    Args:
        variant: `tiny`, `vit_b`, `vit_l` or `vit_h`.
        weights: Path or URI; None for the packaged weights of `tiny`. Of a folder (a Hugging Face
            model, a KerasHub preset), the files with weights in it count.

    Returns:
        64 hexadecimal digits. The file is streamed and never held in memory.

    Raises:
        ConfigError: If no weights are given for a variant without packaged ones.
        WeightsError: If the file is not there or cannot be read.
        TransientStorageError: If its store kept failing in a way that may pass.
    """
    return source_sha256(packaged(variant) if weights is None else weights)


def packaged(variant: str) -> str:
    """Give the path of a variant's packaged weights.

    Raises:
        ConfigError: If the package has none for this variant.
    """
    from amg_pipeline.assets import packaged_weights

    path = packaged_weights(variant)
    if path is None:
        raise ConfigError(
            f"Weights of {variant} must be given, as the path or URI of a checkpoint; "
            f"amg weights fetch {variant} downloads the official one. Received: none"
        )
    return str(path)


def source_sha256(source: Source) -> str:
    """Compute the SHA-256 of a file, or of the names and digests of a folder's weights files."""

    def read(filesystem: Any, path: str) -> str:
        files = _weights_files(filesystem, path)
        if files == [path]:
            return _file_sha256(filesystem, path)
        lines = [f"{_file_sha256(filesystem, file)}  {_name(file)}\n" for file in sorted(files)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    return _reading(source, read)


def source_bytes(source: Source) -> int:
    """Sum the sizes of a source's weights files in bytes."""
    return _reading(
        source,
        lambda filesystem, path: sum(
            int(filesystem.size(file)) for file in _weights_files(filesystem, path)
        ),
    )


@contextmanager
def local_files(source: Source) -> Iterator[tuple[Path, ...]]:
    """Give local paths of a source's weights files; remote ones are copied for the time being.

    Raises:
        WeightsError: If there is nothing, or it cannot be read.
        TransientStorageError: If it could not be fetched in several tries.
        StorageError: If this machine's disk is full.
    """
    with tempfile.TemporaryDirectory(prefix="amg-weights-") as folder:

        def fetch(filesystem: Any, path: str) -> tuple[Path, ...]:
            files = _weights_files(filesystem, path)
            if isinstance(filesystem, LocalFileSystem):
                return tuple(Path(file) for file in files)
            local = tuple(Path(folder) / _name(file) for file in files)
            for file, copy in zip(files, local, strict=True):
                filesystem.get_file(file, str(copy))
            return local

        yield _reading(source, fetch)


def shown(source: Source) -> str:
    """Write a source for messages, without the credentials that a URI may carry."""
    text = os.fspath(source)
    if "://" not in text:
        return text
    parts = urlsplit(text)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def transfer_errors() -> tuple[type[Exception], ...]:
    """List what file systems raise when a transfer fails."""
    # Both come with s3fs; imported here because most runs never read a URI.
    import aiohttp
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]

    return OSError, ImportError, ValueError, aiohttp.ClientError, BotoCoreError


def is_absence(error: Exception) -> bool:
    """Whether a transfer failed because there is nothing at the address.

    fsspec reports every failure of a web server as FileNotFoundError and keeps the real one as
    its cause.
    """
    if not isinstance(error, FileNotFoundError):
        return False
    cause = error.__cause__
    return cause is None or getattr(cause, "status", None) in (404, 410)


def transfer_reason(error: Exception) -> str:
    """Name a failed transfer's real error without its text, which may hold a signed address."""
    cause = error.__cause__ if isinstance(error, FileNotFoundError) else None
    status = getattr(cause or error, "status", None)
    name = type(cause or error).__name__
    return f"{name} {status}" if status else name


def _reading(source: Source, operation: Callable[[Any, str], _Result]) -> _Result:
    """Run an operation on a source's file system and path; faults that may pass are retried."""

    def attempt() -> _Result:
        try:
            return operation(*fsspec.core.url_to_fs(os.fspath(source)))
        except transfer_errors() as error:
            raise _translated(error, source) from None

    caller = stamina.RetryingCaller(attempts=_ATTEMPTS, timeout=_RETRY_SECONDS)
    return caller(TransientStorageError, attempt)


def _translated(error: Exception, source: Source) -> WeightsError | StorageError:
    """Tell weights that are not there or not to be had from a store or a disk that fails now."""
    if is_absence(error):
        return WeightsError(f"Expected weights at {shown(source)}. Received: nothing there")
    received = f"Received: {transfer_reason(error)}"
    if getattr(error, "errno", None) in _FULL_ERRNOS:
        return StorageError(
            f"Weights at {shown(source)} must have room in the temporary folder. {received}"
        )
    if _may_pass(error):
        return TransientStorageError(
            f"The store of the weights at {shown(source)} did not answer as it should. {received}"
        )
    return WeightsError(f"Expected readable weights at {shown(source)}. {received}")


def _may_pass(error: Exception) -> bool:
    import aiohttp
    from botocore import exceptions as boto  # type: ignore[import-untyped]

    # File systems wrap the real error.
    real = error.__cause__ if isinstance(error.__cause__, Exception) else error
    status = getattr(real, "status", None)
    if isinstance(response := getattr(real, "response", None), dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if isinstance(status, int):
        return status in _TRANSIENT_STATUSES or status >= 500
    if isinstance(real, _LASTING_FAULTS):
        return False
    passing = (boto.ConnectionError, boto.HTTPClientError, boto.IncompleteReadError)
    return isinstance(real, (OSError, aiohttp.ClientError, *passing))


def _name(path: str) -> str:
    return PurePosixPath(urlsplit(path).path).name or "weights"


def _file_sha256(filesystem: Any, path: str) -> str:
    digest = hashlib.sha256()
    with filesystem.open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _weights_files(filesystem: Any, path: str) -> list[str]:
    if path.endswith(f"/{_INDEX}"):
        return _shards(filesystem, path)
    # Web servers have no folders, and asking for one would download a page.
    protocols = filesystem.protocol
    is_web = "http" in ((protocols,) if isinstance(protocols, str) else protocols)
    if is_web or not filesystem.isdir(path):
        if not is_web and not filesystem.exists(path):
            raise FileNotFoundError(path)
        return [path]
    root = path.rstrip("/")
    for name in _FOLDER_FILES:
        if filesystem.exists(f"{root}/{name}"):
            file = f"{root}/{name}"
            return _shards(filesystem, file) if name == _INDEX else [file]
    raise WeightsError(
        f"Expected one of {', '.join(_FOLDER_FILES)} in the folder. "
        f"Received: {_name(root)!r} without any"
    )


def _shards(filesystem: Any, index: str) -> list[str]:
    try:
        weight_map = json.loads(filesystem.cat_file(index))["weight_map"]
        names = sorted(set(weight_map.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"Expected a weight_map in {_INDEX}. Received: {type(error).__name__}"
        ) from None
    for name in names:
        if type(name) is not str or not _SHARD_NAME.fullmatch(name):
            raise WeightsError(
                f"Expected plain file names in {_INDEX}. Received: {str(name)[:100]!r}"
            )
    folder = index.rpartition("/")[0]
    return [f"{folder}/{name}" for name in names]
