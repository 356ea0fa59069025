"""What workers run in tests instead of a model: fast, and as bad as an image can be.

Everything here is found by its module's name, in the processes of Ray's workers too.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.config import RunConfig
from amg_pipeline.errors import WeightsError
from amg_pipeline.records import DecodedImage, ImageRef
from amg_pipeline.shard_runner import MaskGenerator
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.object_store import ObjectStore
from tests.photo_runs import Found, threshold_masks

_MIB = 2**20


def make_threshold_generator(config: RunConfig) -> MaskGenerator:
    """Stand in for `make_mask_generator`."""
    return threshold_masks


@dataclass(frozen=True)
class SlowGenerator:
    """Makes a stand-in for the model that takes so long for each image."""

    seconds: float

    def __call__(self, config: RunConfig) -> MaskGenerator:
        def generate(pixels: NDArray[np.uint8]) -> Found:
            time.sleep(self.seconds)
            return threshold_masks(pixels)

        return generate


@dataclass(frozen=True)
class SlowStart:
    """Stands in for weights that take so long to load."""

    seconds: float

    def __call__(self, config: RunConfig) -> MaskGenerator:
        time.sleep(self.seconds)
        return threshold_masks


@dataclass(frozen=True)
class DieAtCommit:
    """Makes a model whose process dies before or after it puts a shard, if there is a mark for it.

    Marks are files called `before` and `after`; one is taken by one process.
    """

    make_generator: Callable[[RunConfig], MaskGenerator]
    marks: Path

    def __call__(self, config: RunConfig) -> MaskGenerator:
        for name in ("put", "create"):
            setattr(ObjectStore, name, self._deadly(getattr(ObjectStore, name)))
        return self.make_generator(config)

    def _deadly(self, write: Callable[..., None]) -> Callable[..., None]:
        def replaced(store: ObjectStore, key: str, data: bytes) -> None:
            is_commit = key.startswith("masks/")
            if is_commit:
                self._die_if("before")
            write(store, key, data)
            if is_commit:
                self._die_if("after")

        return replaced

    def _die_if(self, mark: str) -> None:
        with suppress(FileNotFoundError):
            (self.marks / mark).unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def refuse_weights(config: RunConfig) -> MaskGenerator:
    """Stand in for weights that do not fit."""
    raise WeightsError("The weights must fit tiny. Received: others")


def fail_to_start(config: RunConfig) -> MaskGenerator:
    """Stand in for a process that cannot come up."""
    raise RuntimeError("no such library")


def break_on_photos_4_to_7(config: RunConfig) -> MaskGenerator:
    """Stand in for a fault of the program that shows on some images of `write_photos`."""
    bad = [
        np.random.default_rng(n).integers(0, 256, (5 + n % 4, 8, 3), dtype=np.uint8)
        for n in range(4, 8)
    ]

    def generate(pixels: NDArray[np.uint8]) -> Found:
        if any(np.array_equal(pixels, photo) for photo in bad):
            raise RuntimeError("this image fails")
        return threshold_masks(pixels)

    return generate


@dataclass(frozen=True)
class BreakDeviceOnce:
    """Stand in for an accelerator that is broken until its process ends; the next one works."""

    mark: Path

    def __call__(self, config: RunConfig) -> MaskGenerator:
        is_broken = not self.mark.exists()
        self.mark.touch()

        def generate(pixels: NDArray[np.uint8]) -> Found:
            if is_broken:
                raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access")
            return threshold_masks(pixels)

        return generate


@dataclass(frozen=True)
class NoteDevices:
    """Writes down which GPUs each worker sees."""

    folder: Path

    def __call__(self, config: RunConfig) -> MaskGenerator:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
        (self.folder / str(os.getpid())).write_text(seen)
        # Slow enough that the first worker leaves something for the second.
        return SlowGenerator(0.5)(config)


def load_poison(ref: ImageRef, **options: Any) -> DecodedImage:
    """Decode an image, or do to the process what its name says."""
    name = ref.image_id.rsplit("/", 1)[-1]
    if "segfault" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
        # A real one would not return.
        time.sleep(3600)
    if "hang" in name:
        time.sleep(3600)
    if "eat" in name:
        held = []
        while True:
            held.append(np.ones(32 * _MIB, np.uint8))
    return load_image(ref, **options)
