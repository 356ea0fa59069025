"""From photos to Parquet with the real model, and the result as other programs read it."""

from __future__ import annotations

import math
import subprocess
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pytest
from PIL import Image
from pycocotools import mask as coco

from amg_pipeline import load_masks
from amg_pipeline.assets import PHOTOS_FOLDER, packaged_weights
from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights.architecture import METADATA_KEY, expected_shapes, of_preset
from amg_pipeline.sam.weights.safetensors_file import write_safetensors
from amg_pipeline.sam.weights.tensors import SourceTensor

PHOTOS = ("cat.jpg", "coins.jpg", "rocket.jpg")
#: Few prompts and no thresholds: what counts here is the way, not the masks' quality.
QUICK = (
    "amg.points_per_side=4",
    "amg.pred_iou_thresh=0",
    "amg.stability_score_thresh=0",
    "amg.box_nms_thresh=1",
)


@dataclass(frozen=True)
class Finished:
    out: Path
    printed: str


def write_seeded_tiny(path: Path) -> None:
    """Write a checkpoint of the packaged model's architecture with random values."""

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        values = rng.standard_normal(shape) / math.sqrt(max(1, math.prod(shape[1:])))
        return values.astype(np.float32)

    architecture = of_preset(PRESETS["tiny"])
    tensors = {
        name: SourceTensor(name, shape, "float32", lambda name=name, shape=shape: draw(name, shape))
        for name, shape in expected_shapes(architecture).items()
    }
    with path.open("wb") as file:
        metadata = {METADATA_KEY: architecture.to_json()}
        write_safetensors(file, tensors, dtype="float32", metadata=metadata)


def amg(*arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "amg_pipeline.cli"]
        + [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("run")
    weights: list[object] = []
    if packaged_weights("tiny") is None:
        write_seeded_tiny(folder / "tiny.safetensors")
        weights = ["--weights", folder / "tiny.safetensors"]
    includes = [word for name in PHOTOS for word in ("--include", name)]
    settings = [word for setting in QUICK for word in ("--set", setting)]
    printed = amg(
        *("run", PHOTOS_FOLDER, folder / "out", "--local", "--shard-size", 2),
        *(*includes, *settings, *weights),
    )
    return Finished(folder / "out", printed)


pytestmark = pytest.mark.slow


def test_run_ends_well_and_verifies(finished: Finished) -> None:
    assert finished.printed.splitlines()[0].startswith("3 images, 0.1 MiB, 2 shards: 0 done")
    last_line = finished.printed.splitlines()[-1]
    assert last_line.startswith("3 images, ")
    assert last_line.endswith(f" masks, no failures; output: {finished.out}")
    assert amg("verify", finished.out) == "2 shards of 2 committed and sound\n"


def test_load_masks_has_a_row_per_photo(finished: Finished) -> None:
    rows = load_masks(str(finished.out)).to_table().to_pylist()

    assert [row["image_id"] for row in rows] == list(PHOTOS)
    for row in rows:
        with Image.open(PHOTOS_FOLDER / row["image_id"]) as photo:
            assert (row["width"], row["height"]) == photo.size
        assert row["status"] == "ok"
        assert row["num_masks"] == len(row["masks"]) >= 5


# pycocotools 2.0 hands its arrays to NumPy 2 in a way that NumPy asks to change.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_pycocotools_decodes_every_mask_to_its_area_and_box(finished: Finished) -> None:
    masks = 0
    for row in load_masks(str(finished.out)).to_table().to_pylist():
        for mask in row["masks"]:
            rle = {"size": [row["height"], row["width"]], "counts": mask["counts"]}
            pixels = coco.decode(rle)
            assert pixels.shape == (row["height"], row["width"])
            assert int(pixels.sum()) == mask["area"] == int(coco.area(rle))
            assert mask["bbox"] == coco.toBbox(rle).tolist() == _tight_box(pixels)
            assert 0 <= mask["stability_score"] <= 1
            assert mask["crop_box"] == [0, 0, row["width"], row["height"]]
            masks += 1
    assert f", {masks} masks, " in finished.printed


def test_duckdb_reads_the_parquet(finished: Finished) -> None:
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT image_id, count(*), sum(m.area), min(m.predicted_iou) "
            "FROM (SELECT image_id, unnest(masks) AS m FROM read_parquet(?)) "
            "GROUP BY image_id ORDER BY image_id",
            [f"{finished.out}/masks/*.parquet"],
        ).fetchall()

    assert rows == [
        (
            row["image_id"],
            row["num_masks"],
            sum(mask["area"] for mask in row["masks"]),
            min(mask["predicted_iou"] for mask in row["masks"]),
        )
        for row in load_masks(str(finished.out)).to_table().to_pylist()
    ]


def test_polars_reads_the_parquet(finished: Finished) -> None:
    frame = polars.read_parquet(f"{finished.out}/masks/*.parquet")

    stored = load_masks(str(finished.out)).to_table().to_pylist()
    assert frame["image_id"].to_list() == list(PHOTOS)
    masks = frame.select("image_id", "masks").explode("masks").unnest("masks")
    assert masks["counts"].to_list() == [m["counts"] for row in stored for m in row["masks"]]
    assert masks["bbox"].to_list() == [m["bbox"] for row in stored for m in row["masks"]]
    assert masks["area"].sum() == sum(m["area"] for row in stored for m in row["masks"])


def _tight_box(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> list[float]:
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if rows.size == 0:
        return [0.0, 0.0, 0.0, 0.0]
    left, top = float(columns[0]), float(rows[0])
    return [left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top]
