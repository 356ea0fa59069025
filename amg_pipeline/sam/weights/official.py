"""Downloads the official checkpoints once, into a cache, and checks what arrived."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from filelock import FileLock
from platformdirs import user_cache_path

from amg_pipeline.errors import ConfigError, WeightsError
from amg_pipeline.sam.weights.source import is_absence, shown, transfer_errors, transfer_reason

_BLOCK_BYTES = 4 * 2**20
_BASE_URL = "https://dl.fbaipublicfiles.com/segment_anything"

#: Called with the bytes on disk so far and the file's size.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialWeights:
    """One published checkpoint (Apache-2.0). The name carries the start of the file's MD5."""

    file_name: str
    size_bytes: int
    sha256: str

    @property
    def url(self) -> str:
        """Where Meta publishes it."""
        return f"{_BASE_URL}/{self.file_name}"


OFFICIAL_WEIGHTS: dict[str, OfficialWeights] = {
    "vit_b": OfficialWeights(
        file_name="sam_vit_b_01ec64.pth",
        size_bytes=375_042_383,
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": OfficialWeights(
        file_name="sam_vit_l_0b3195.pth",
        size_bytes=1_249_524_607,
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": OfficialWeights(
        file_name="sam_vit_h_4b8939.pth",
        size_bytes=2_564_550_879,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}


def default_cache_dir() -> Path:
    """Give the user's cache folder for weights, as the operating system has it."""
    return user_cache_path("amg_pipeline") / "weights"


def cached_weights(variant: str, cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Give the path of an official checkpoint that was fetched before.

    Raises:
        ConfigError: If there is no such checkpoint, or it was not fetched.
    """
    path = _cache_path(variant, cache_dir)
    if not path.exists():
        raise ConfigError(
            f"The weights of {variant} are not here yet; run: amg weights fetch {variant}, or give "
            f"a path or URI. Received: no file {path}"
        )
    return path


def fetch(
    variant: str,
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    url: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Download an official checkpoint, unless it is in the cache.

    A download that was cut off is continued where it stopped. Processes that fetch the same file
    wait for each other.

    Args:
        variant: `vit_b`, `vit_l` or `vit_h`.
        cache_dir: Folder for the file; the user's cache by default.
        url: Where to read instead of Meta's address, e.g. a mirror; any fsspec URI. The same
            bytes are expected.
        progress: Called after every block.

    Returns:
        Path of the checked file.

    Raises:
        ConfigError: If there is no such checkpoint.
        WeightsError: If the transfer fails (what arrived is kept for the next try), or the file
            has another size or digest (it is removed).
    """
    path = _cache_path(variant, cache_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    official = OFFICIAL_WEIGHTS[variant]
    with FileLock(f"{path}.lock"):
        if path.exists() and path.stat().st_size == official.size_bytes:
            return path
        partial = path.with_name(f"{path.name}.part")
        _download(url or official.url, partial, official.size_bytes, progress)
        _check(partial, official, url or official.url)
        partial.replace(path)
    return path


def _cache_path(variant: str, cache_dir: str | os.PathLike[str] | None) -> Path:
    official = OFFICIAL_WEIGHTS.get(variant)
    if official is None:
        raise ConfigError(
            f"Official weights exist for {', '.join(OFFICIAL_WEIGHTS)}. Received: {variant!r}"
        )
    return Path(cache_dir or default_cache_dir()) / official.file_name


def _download(url: str, partial: Path, size: int, progress: Progress | None) -> None:
    try:
        filesystem, remote = fsspec.core.url_to_fs(url)
        there = filesystem.size(remote)
        if there is not None and there != size:
            raise WeightsError(
                f"Expected a file of {size} bytes at {shown(url)}. Received: one of {there}"
            )
        _append_rest(filesystem, remote, partial, size, progress)
    except transfer_errors() as error:
        if is_absence(error):
            raise WeightsError(
                f"Expected weights at {shown(url)}. Received: nothing there"
            ) from None
        raise _cut_off(url, partial, size, transfer_reason(error)) from error
    if partial.stat().st_size < size:
        raise _cut_off(url, partial, size, "the end of the stream")


def _cut_off(url: str, partial: Path, size: int, reason: str) -> WeightsError:
    kept = partial.stat().st_size if partial.exists() else 0
    return WeightsError(
        f"Expected {size} bytes from {shown(url)}. Received: {kept}, then {reason}. "
        "Run the same command again to go on from there"
    )


def _append_rest(
    filesystem: Any, remote: str, partial: Path, size: int, progress: Progress | None
) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    if 0 < have <= size:
        try:
            _copy(filesystem, remote, partial, have, size, progress)
        except ValueError:
            # This is how fsspec reports a server that ignores ranges.
            have = 0
        else:
            return
    partial.unlink(missing_ok=True)
    _copy(filesystem, remote, partial, 0, size, progress)


def _copy(
    filesystem: Any, remote: str, partial: Path, start: int, size: int, progress: Progress | None
) -> None:
    protocols = filesystem.protocol
    is_web = "http" in ((protocols,) if isinstance(protocols, str) else protocols)
    # Over HTTP, block size 0 is one plain request for everything; seeking needs range requests.
    block_size = 0 if is_web and not start else _BLOCK_BYTES
    have = start
    with filesystem.open(remote, "rb", block_size=block_size) as source, partial.open("ab") as file:
        if start:
            source.seek(start)
        while have < size and (block := source.read(min(_BLOCK_BYTES, size - have))):
            file.write(block)
            have += len(block)
            if progress:
                progress(have, size)


def _check(partial: Path, official: OfficialWeights, url: str) -> None:
    digest = hashlib.sha256()
    with partial.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    if digest.hexdigest() != official.sha256:
        partial.unlink()
        raise WeightsError(
            f"Expected the SHA-256 {official.sha256} for {official.file_name}. Received: "
            f"{digest.hexdigest()} from {shown(url)}; the file was removed, fetch it again"
        )
