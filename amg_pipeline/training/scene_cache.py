"""Keeps rendered scenes on disk as arrays that training maps into memory.

A cache is a folder with `images.npy` (uint8 `(N, size, size, 3)`), `label_maps.npy` (uint8
`(N, 3, size, size)`), `sizes.npy` (int32 `(N, 2)`, the height and width that a scene fills, from
the top left) and `meta.json`, which is written last: without it there is no cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.scenes import (
    LEVELS,
    SCENES_VERSION,
    SMALLEST_SIZE,
    Scene,
    render_scene,
)

META_FILE = "meta.json"
IMAGES_FILE = "images.npy"
LABEL_MAPS_FILE = "label_maps.npy"
SIZES_FILE = "sizes.npy"
_ARRAY_FILES = (IMAGES_FILE, LABEL_MAPS_FILE, SIZES_FILE)
_TYPES = (np.uint8, np.uint8, np.int32)
_PROGRESS_FILE = "progress.json"
_PART_SUFFIX = ".partial"
_CHUNK = 32
#: What a cache of synthetic scenes says of their source.
SYNTHETIC = "synthetic"


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneCacheMeta:
    """What a cache holds; two caches with equal metas hold equal bytes."""

    count: int  # scenes
    size: int  # pixels, longer side of a scene
    seed: int  # of the first scene; scene i has seed + i
    scenes_version: int = SCENES_VERSION  # of the generator
    source: str = SYNTHETIC  # what the scenes are made of

    def __post_init__(self) -> None:
        """Refuse what no cache can be.

        Raises:
            ConfigError: If a number is out of range.
        """
        for name, least in (("count", 1), ("size", SMALLEST_SIZE), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"A scene cache needs a {name} of at least {least}. "
                    f"Received: {getattr(self, name)}."
                )


@dataclass(frozen=True, slots=True)
class SceneCache:
    """A finished cache, its arrays mapped read-only.

    Attributes:
        meta: What the cache holds.
        images: uint8 `(count, size, size, 3)` RGB, 0 beyond a scene's size.
        label_maps: uint8 `(count, 3, size, size)`, likewise; see `Scene.label_maps`.
        sizes: Height and width of each scene, int32 `(count, 2)`.
    """

    meta: SceneCacheMeta
    images: NDArray[np.uint8]
    label_maps: NDArray[np.uint8]
    sizes: NDArray[np.int32]

    def scene(self, index: int) -> Scene:
        """Give a scene at its own size; its arrays are views of the cache's."""
        height, width = self.sizes[index]
        return Scene(
            self.images[index, :height, :width], self.label_maps[index, :, :height, :width]
        )

    @classmethod
    def open(cls, directory: str | Path, *, expected: SceneCacheMeta | None = None) -> SceneCache:
        """Map a finished cache into memory.

        Args:
            directory: Where `render_scenes` put it.
            expected: What it must hold; None takes what is there.

        Raises:
            ConfigError: If there is no finished cache, or it holds something else.
        """
        folder = Path(directory)
        meta = _read_meta(folder)
        if meta is None:
            raise ConfigError(
                f"Expected a finished scene cache (with {META_FILE}). Received: {folder}. "
                "Render it first, or again if the rendering was interrupted."
            )
        _refuse_other(folder, meta, expected or meta)
        try:
            arrays = [np.load(folder / name, mmap_mode="r") for name in _ARRAY_FILES]
        except FileNotFoundError as error:
            raise ConfigError(
                f"Expected {', '.join(_ARRAY_FILES)} in {folder}. Received: no "
                f"{error.filename}. Delete the folder and render it again."
            ) from error
        shapes, found = _array_shapes(meta), tuple(array.shape for array in arrays)
        if found != shapes:
            raise ConfigError(
                f"Expected arrays of shapes {shapes} in {folder}. Received: {found}. "
                "Delete the folder and render it again."
            )
        return cls(meta, *arrays)


def render_scenes(
    directory: str | Path, *, count: int, size: int = 256, seed: int = 0, processes: int = 2
) -> SceneCache:
    """Render scenes `seed` to `seed + count - 1` into a folder; see `fill_cache`.

    Args:
        directory: Made if missing.
        count: Number of scenes.
        size: Side of a scene in pixels.
        seed: Seed of the first scene, 0 or more.
        processes: Worker processes; 1 renders in this process.

    Returns:
        The finished cache.

    Raises:
        ConfigError: If the folder holds other scenes, or an argument is out of range.
    """
    meta = SceneCacheMeta(count=count, size=size, seed=seed)
    return fill_cache(directory, meta, partial(_render_synthetic, seed, size), processes=processes)


def fill_cache(
    directory: str | Path,
    meta: SceneCacheMeta,
    render: Callable[[int], Scene],
    *,
    processes: int = 2,
) -> SceneCache:
    """Render scenes into a folder, unless it has them already.

    The arrays grow under temporary names, together with a note of the finished chunks, so a
    killed rendering is taken up where it stopped and is never mistaken for a finished one. Only
    one rendering may work in a folder at a time.

    Args:
        directory: Made if missing.
        meta: What the cache will hold.
        render: Gives the scene of an index from 0; can be pickled.
        processes: Worker processes; 1 renders in this process.

    Returns:
        The finished cache.

    Raises:
        ConfigError: If the folder holds other scenes, or an argument is out of range.
    """
    if processes < 1:
        raise ConfigError(f"Rendering needs at least 1 process. Received: {processes}.")
    folder = Path(directory)
    finished = _read_meta(folder)
    if finished is not None:
        _refuse_other(folder, finished, meta)
        return SceneCache.open(folder)
    folder.mkdir(parents=True, exist_ok=True)
    done = _begin(folder, meta)
    chunks = [first for first in range(0, meta.count, _CHUNK) if first not in done]
    for first in _render_chunks(folder, meta, render, chunks, processes=processes):
        done.add(first)
        _write_json(folder / _PROGRESS_FILE, {"meta": asdict(meta), "done": sorted(done)})
    _publish(folder, meta)
    return SceneCache.open(folder, expected=meta)


def _render_synthetic(seed: int, size: int, index: int) -> Scene:
    return render_scene(seed + index, size)


def _begin(folder: Path, meta: SceneCacheMeta) -> set[int]:
    """Make the arrays under temporary names, or find those of a killed rendering.

    Returns:
        First scenes of the chunks that are complete.
    """
    progress = folder / _PROGRESS_FILE
    if progress.exists():
        stored = json.loads(progress.read_text(encoding="utf-8"))
        _refuse_other(folder, SceneCacheMeta(**stored["meta"]), meta)
        return set(stored["done"])
    for name, dtype, shape in zip(_ARRAY_FILES, _TYPES, _array_shapes(meta), strict=True):
        open_memmap(folder / (name + _PART_SUFFIX), mode="w+", dtype=dtype, shape=shape)
    _write_json(progress, {"meta": asdict(meta), "done": []})
    return set()


def _render_chunks(
    folder: Path,
    meta: SceneCacheMeta,
    render: Callable[[int], Scene],
    chunks: list[int],
    *,
    processes: int,
) -> Iterator[int]:
    """Render chunks in any order; yield each one's first scene when its bytes are written."""
    render_chunk = partial(_render_chunk, folder, meta, render)
    if processes == 1 or len(chunks) < 2:
        yield from map(render_chunk, chunks)
        return
    # Spawned, not forked: the caller may hold threads of a deep learning framework.
    with get_context("spawn").Pool(min(processes, len(chunks))) as pool:
        yield from pool.imap_unordered(render_chunk, chunks)


def _render_chunk(
    folder: Path, meta: SceneCacheMeta, render: Callable[[int], Scene], first: int
) -> int:
    images, label_maps, sizes = arrays = [
        np.load(folder / (name + _PART_SUFFIX), mmap_mode="r+") for name in _ARRAY_FILES
    ]
    for index in range(first, min(first + _CHUNK, meta.count)):
        scene = render(index)
        height, width = sizes[index] = scene.image.shape[:2]
        images[index, :height, :width] = scene.image
        label_maps[index, :, :height, :width] = scene.label_maps
    for array in arrays:
        array.flush()
    return first


def _publish(folder: Path, meta: SceneCacheMeta) -> None:
    """Give the arrays their names, then say that the cache is finished."""
    for name in _ARRAY_FILES:
        part = folder / (name + _PART_SUFFIX)
        # Absent when the process was killed between this rename and the writing of the meta.
        if part.exists():
            part.replace(folder / name)
    _write_json(folder / META_FILE, asdict(meta))
    (folder / _PROGRESS_FILE).unlink(missing_ok=True)


def _array_shapes(meta: SceneCacheMeta) -> tuple[tuple[int, ...], ...]:
    return (
        (meta.count, meta.size, meta.size, 3),
        (meta.count, len(LEVELS), meta.size, meta.size),
        (meta.count, 2),
    )


def _read_meta(folder: Path) -> SceneCacheMeta | None:
    try:
        text = (folder / META_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return SceneCacheMeta(**json.loads(text))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"Expected the meta of a scene cache in {folder / META_FILE}. Received: {error}. "
            "Delete the folder and render it again."
        ) from error


def _refuse_other(folder: Path, found: SceneCacheMeta, expected: SceneCacheMeta) -> None:
    differing = {
        key: f"{asdict(found)[key]} instead of {value}"
        for key, value in asdict(expected).items()
        if asdict(found)[key] != value
    }
    if differing:
        raise ConfigError(
            f"Expected a scene cache of other settings in {folder}. Received: {differing}. "
            "Name another folder, or delete this one."
        )


def _write_json(path: Path, value: object) -> None:
    """Write a file so that it is there whole or not at all."""
    part = path.with_name(path.name + _PART_SUFFIX)
    with part.open("w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
