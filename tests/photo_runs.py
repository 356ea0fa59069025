"""Small runs without a model: photos on disk, a plan for them, and masks by a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.config import ModelSettings, RunConfig, load_config
from amg_pipeline.planning import Plan, make_plan
from amg_pipeline.records import MaskRecord
from amg_pipeline.shard_runner import MaskGenerator
from amg_pipeline.storage.object_store import ObjectStore
from tests.storage.doubles import make_record


@dataclass(frozen=True)
class Found:
    """Masks with which nothing is left to do."""

    records: tuple[MaskRecord, ...] = ()

    def to_records(self) -> tuple[MaskRecord, ...]:
        return self.records


def write_photo(path: Path, *, height: int = 6, width: int = 8, seed: int = 0) -> None:
    """Write noise in the format of the path's ending."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_photos(folder: Path, count: int) -> Path:
    """Write `count` photos, each different; the file names sort as they are numbered."""
    folder.mkdir(parents=True)
    for number in range(count):
        write_photo(folder / f"{number:03d}.png", height=5 + number % 4, seed=number)
    return folder


def threshold_masks(pixels: NDArray[np.uint8]) -> Found:
    """Find one mask per channel, plus one for each step of the first pixel's brightness."""
    masks = [pixels[..., channel] >= 128 for channel in range(3)]
    masks += [pixels.max(axis=-1) > 40] * (int(pixels[0, 0, 0]) % 3)
    return Found(tuple(make_record(mask, score=1 / (1 + i)) for i, mask in enumerate(masks)))


def make_threshold_generator(config: RunConfig) -> MaskGenerator:
    """Stand in for `make_mask_generator`."""
    return threshold_masks


def failing(at: int, error: BaseException) -> MaskGenerator:
    """Fail from the n-th image on, counted from 0."""
    calls = iter(range(10_000))

    def generate(pixels: NDArray[np.uint8]) -> Found:
        if next(calls) >= at:
            raise error
        return threshold_masks(pixels)

    return generate


def digest(variant: str, weights: str | None) -> str:
    """Stand in for the digest of weights."""
    return "ab" * 32


def accept(model: ModelSettings) -> None:
    """Stand in for the check that a model can be made."""


def plan_photos(photos: object, out: object, *overrides: str, shard_size: int = 2) -> Plan:
    """Plan a run as the command line does, for weights that need not exist."""
    config = load_config(
        overrides=[f"output.shard_size={shard_size}", *overrides],
        settings={"images": {"input": str(photos)}, "output": {"uri": str(out)}},
    )
    return make_plan(
        config, package_version="0.1.0", weights_digest=digest, check_model=accept, cpu_count=2
    )


def stored_masks(out: object) -> dict[str, bytes]:
    """Everything in `masks/`, unfinished writes left out."""
    store = ObjectStore.open(str(out))
    return {info.key: store.read(info.key) for info in store.list("masks/")}


def everything_in(folder: object) -> dict[str, bytes]:
    """Everything below a folder but unfinished writes, which nothing refers to."""
    store = ObjectStore.open(str(folder))
    return {info.key: store.read(info.key) for info in store.list()}
