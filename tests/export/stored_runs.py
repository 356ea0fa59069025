"""A small stored run with masks of all kinds, made without a model, and its masks decoded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy import ndimage

from amg_pipeline.planning import Plan
from amg_pipeline.records import ImageRef, ImageResult
from amg_pipeline.storage.mask_table import encode_table, load_masks
from tests.photo_runs import plan_photos, write_photo
from tests.storage.doubles import failed_result, make_record

Mask = NDArray[np.bool_]

#: Image ids with their sizes (height, width); two differ in their ending only.
IMAGES = {
    "a.png": (96, 128),
    "b/c d.png": (75, 60),
    "b/c d.webp": (40, 64),
    "empty.png": (32, 32),
    "große%20#1.png": (64, 50),
}
BROKEN = "broken.png"
#: An image without masks.
EMPTY = "empty.png"


@dataclass(frozen=True)
class StoredMask:
    """A mask of the run as pycocotools decodes it from the Parquet."""

    image_id: str
    mask: Mask
    predicted_iou: float
    stability_score: float

    @property
    def is_plain(self) -> bool:
        """Whether it is one part without a hole, so that a polygon can keep it."""
        holes = ndimage.label(np.pad(~self.mask, 1, constant_values=True), np.ones((3, 3)))[1] - 1
        return bool(holes == 0 and ndimage.label(self.mask)[1] == 1)

    @property
    def has_holes(self) -> bool:
        return bool(
            ndimage.label(np.pad(~self.mask, 1, constant_values=True), np.ones((3, 3)))[1] > 1
        )


def write_run(folder: Path, *overrides: str) -> Path:
    """Write photos, and a run of them in shards of two; returns its output."""
    photos = folder / "photos"
    for seed, (image_id, (height, width)) in enumerate(IMAGES.items()):
        (photos / image_id).parent.mkdir(parents=True, exist_ok=True)
        write_photo(photos / image_id, height=height, width=width, seed=seed)
    (photos / BROKEN).write_bytes(b"no image")
    commit_shapes(plan_photos(photos, folder / "run", *overrides))
    return folder / "run"


def commit_shapes(plan: Plan) -> None:
    """Do the shards of a plan as a run would, with the masks of `shapes_of`."""
    for shard in plan.run_directory.shards(plan.stored):
        results = [_result(ref) for ref in shard.images]
        data = encode_table(results, plan.table_metadata)
        plan.run_directory.commit_shard(plan.stored, shard.shard_id, data)


def _result(ref: ImageRef) -> ImageResult:
    if ref.image_id == BROKEN:
        return replace(failed_result(BROKEN), ref=ref)
    height, width = IMAGES[ref.image_id]
    masks = shapes_of((height, width)) if ref.image_id != EMPTY else ()
    records = tuple(
        make_record(mask, score=round(0.95 - 0.03 * index, 2)) for index, mask in enumerate(masks)
    )
    return ImageResult(ref, "ok", width=width, height=height, masks=records)


@cache
def shapes_of(size: tuple[int, int]) -> tuple[Mask, ...]:
    """Blobs of many sizes, and what polygons find hard, in an image of (height, width)."""
    height, width = size
    y, x = np.mgrid[:height, :width]
    ring = np.hypot(x - width * 0.4, y - height * 0.5)
    masks = [np.ones(size, bool), (ring < height / 3) & (ring > height / 6)]
    masks.append((np.hypot(x - 9, y - 9) < 6) | (np.hypot(x - width + 12, y - height + 9) < 9))
    masks.append(np.abs(x - y * width / height) < 4)
    noise = np.random.default_rng(height).standard_normal(size)
    for sigma in (3, 5, 8):
        field = ndimage.gaussian_filter(noise, sigma)
        labels, _ = ndimage.label(field > np.quantile(field, 0.6))
        largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        masks.append(ndimage.binary_fill_holes(labels == largest))
    masks.append((x >= 20) & (x < 36) & (y >= 10) & (y < 23))
    masks.append((x == width - 1) & (y == height - 1))
    masks.append((y == 5) & (x >= 3) & (x < 11))
    return tuple(masks)


def stored_masks(output: object) -> Iterator[StoredMask]:
    """Decode all masks of a run in order, by pyarrow and pycocotools alone."""
    for row in load_masks(str(output)).to_table().to_pylist():
        for found in row["masks"]:
            rle = {"size": [row["height"], row["width"]], "counts": found["counts"]}
            with warnings.catch_warnings():
                # pycocotools 2.0.11 itself, with NumPy 2.
                warnings.simplefilter("ignore", DeprecationWarning)
                mask = coco.decode(rle).astype(bool)
            yield StoredMask(
                row["image_id"],
                mask,
                found["predicted_iou"],
                found["stability_score"],
            )


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union."""
    return float((first & second).sum() / (first | second).sum())


def required_iou(area: int) -> float:
    """What a polygon must reach on a mask of this area without holes."""
    return 0.98 if area >= 2500 else 0.90 if area >= 200 else 0.0
