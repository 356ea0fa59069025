"""Write the output of a run that never was: many images with many masks, for what reads outputs.

    python -m benchmarks.synthetic_run OUT [--images 100000] [--masks 100]

Masks are blobs of many sizes in images of 1500 x 2250 pixels, drawn from a pool of some thousand;
scores are drawn for each. The same numbers give the same rows. No image files are written.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from pycocotools import mask as coco

from amg_pipeline import __version__
from amg_pipeline.config import load_config
from amg_pipeline.planning import make_plan
from amg_pipeline.records import ImageRef
from amg_pipeline.storage.mask_table import MASK_SCHEMA, encode_rows

HEIGHT, WIDTH = 1500, 2250
SHARD_IMAGES = 128
POOL_MASKS = 4096
#: Of a mask, in pixels; the middle of a wide distribution.
MEDIAN_RADIUS = 50
CORNERS = 48


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--masks", type=int, default=100)
    arguments = parser.parse_args(words)
    started = time.perf_counter()
    write_synthetic_run(arguments.out, images=arguments.images, masks=arguments.masks)
    print(f"{arguments.images * arguments.masks} masks in {time.perf_counter() - started:.0f} s")


def write_synthetic_run(out: Path, *, images: int, masks: int) -> None:
    """Write a plan and all of its shards."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder, "manifest.csv")
        uris = pa.array([f"s3://bucket/{number:07d}.jpg" for number in range(images)])
        pyarrow.csv.write_csv(pa.table({"uri": uris}), manifest)
        plan = make_plan(
            load_config(
                settings={
                    "images": {"input": str(manifest)},
                    "output": {"uri": str(out), "shard_size": SHARD_IMAGES},
                }
            ),
            package_version=__version__,
            weights_digest=lambda *_: "0" * 64,
            check_model=lambda *_: None,
            cpu_count=1,
        )
    pool = _make_pool()
    for shard in plan.run_directory.shards(plan.stored):
        table = _make_rows(shard.images, masks, pool, seed=shard.shard_id)
        data = encode_rows(table, plan.table_metadata)
        plan.run_directory.commit_shard(plan.stored, shard.shard_id, data)


def _make_pool() -> pa.StructArray:
    """Draw masks as the rows have them."""
    random = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    masks = []
    for _ in range(POOL_MASKS):
        radius = min(MEDIAN_RADIUS * np.exp(0.9 * random.standard_normal()), 700.0)
        wobble = sum(
            random.uniform(0, 0.15) * np.sin(k * angles + random.uniform(0, 7))
            for k in (2, 3, 5, 8)
        )
        radii = radius * (1 + wobble)
        x = random.uniform(0, WIDTH) + radii * np.cos(angles) * random.uniform(0.4, 1.6)
        y = random.uniform(0, HEIGHT) + radii * np.sin(angles)
        polygon = np.stack([x.clip(0, WIDTH), y.clip(0, HEIGHT)], axis=1).ravel().tolist()
        [rle] = coco.frPyObjects([polygon], HEIGHT, WIDTH)
        masks.append(
            {
                "counts": rle["counts"].decode(),
                "bbox": coco.toBbox([rle])[0].tolist(),
                "area": int(coco.area([rle])[0]),
                "predicted_iou": 0.0,
                "stability_score": 0.0,
                "point_coords": [float(x.mean()), float(y.mean())],
                "crop_box": [0, 0, WIDTH, HEIGHT],
            }
        )
    return pa.array(masks, MASK_SCHEMA.field("masks").type.value_type)


def _make_rows(images: Sequence[ImageRef], masks: int, pool: Any, *, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    total = len(images) * masks
    drawn = pool.take(pa.array(random.integers(0, len(pool), total)))
    columns = {part.name: drawn.field(part.name) for part in pool.type}
    for name, low in (("predicted_iou", 0.7), ("stability_score", 0.9)):
        columns[name] = pa.array(random.uniform(low, 1, total).astype(np.float32))
    structs = pa.StructArray.from_arrays(list(columns.values()), fields=list(pool.type))
    offsets = pa.array(np.arange(len(images) + 1, dtype=np.int32) * masks)
    lists = pa.ListArray.from_arrays(offsets, structs, type=MASK_SCHEMA.field("masks").type)
    plain = {
        "image_id": [image.image_id for image in images],
        "uri": [image.uri for image in images],
        "status": ["ok"] * len(images),
        "error_type": [None] * len(images),
        "error_message": [None] * len(images),
        "width": [WIDTH] * len(images),
        "height": [HEIGHT] * len(images),
        "num_masks": [masks] * len(images),
    }
    arrays = [pa.array(plain[part.name], part.type) for part in list(MASK_SCHEMA)[:-1]]
    return pa.Table.from_arrays([*arrays, lists], schema=MASK_SCHEMA)


if __name__ == "__main__":
    main()
