"""The callable class for Ray Data: the same rows with masks, and a status for what is no image."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image

from amg_pipeline import load_masks
from amg_pipeline.config import amg_settings
from amg_pipeline.distributed import dataset
from amg_pipeline.distributed.dataset import RESULT_COLUMNS, GenerateMasks
from amg_pipeline.errors import ConfigError, ImageDecodeError
from amg_pipeline.local_runner import run_locally
from amg_pipeline.storage.coco_rle import parse_rle
from amg_pipeline.storage.mask_table import MASK_SCHEMA
from tests.photo_runs import make_threshold_generator, plan_photos, write_photos

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "amg_pipeline/assets/photos"


def make_step(**options: Any) -> GenerateMasks:
    return GenerateMasks(make_generator=make_threshold_generator, **options)


def png(height: int = 5, width: int = 8) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 200, np.uint8)).save(file, "png")
    return file.getvalue()


def batch_of(*files: bytes | None, **columns: list[Any]) -> pa.Table:
    return pa.table({"bytes": pa.array(files, pa.binary()), **columns})


def test_rows_keep_what_they_have_and_gain_the_columns_of_a_run() -> None:
    batch = batch_of(png(), png(4, 6), label=["a", "b"])
    done = make_step()(batch)
    assert done.column_names == ["bytes", "label", *RESULT_COLUMNS]
    assert done.select(["bytes", "label"]) == batch
    for name in RESULT_COLUMNS:
        assert done.schema.field(name).equals(MASK_SCHEMA.field(name)), name
    assert done["status"].to_pylist() == ["ok", "ok"]
    assert (done["width"].to_pylist(), done["height"].to_pylist()) == ([8, 6], [5, 4])
    assert done["num_masks"].to_pylist() == [len(masks) for masks in done["masks"].to_pylist()]


def test_masks_are_those_of_a_run(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "in", 4)
    (folder / "001.png").write_bytes(b"no image")
    plan = plan_photos(folder, tmp_path / "out")
    run_locally(plan, make_generator=make_threshold_generator)
    stored = load_masks(str(tmp_path / "out")).to_table().sort_by("image_id")

    files = [path.read_bytes() for path in sorted(folder.iterdir())]
    done = make_step()(batch_of(*files))

    assert done.select(RESULT_COLUMNS).to_pylist() == stored.select(RESULT_COLUMNS).to_pylist()


@pytest.mark.parametrize(
    ("data", "options", "status"),
    [
        (b"no image", {}, "decode_error"),
        (b"", {}, "decode_error"),
        (None, {}, "decode_error"),
        (png()[:45], {}, "decode_error"),
        (png(50, 50), {"images": {"max_pixels": 100}}, "too_large"),
    ],
    ids=["text", "empty", "null", "cut", "large"],
)
def test_what_is_no_image_gets_a_status_and_its_neighbours_their_masks(
    data: bytes | None, options: dict[str, Any], status: str
) -> None:
    done = make_step(**options)(batch_of(png(), data, png())).to_pylist()
    assert [row["status"] for row in done] == ["ok", status, "ok"]
    bad = done[1]
    assert bad["masks"] == []
    assert bad["num_masks"] == 0
    assert bad["width"] is bad["height"] is None
    assert "Received" in bad["error_message"]
    assert done[0]["error_type"] is None


def test_a_message_is_no_longer_than_a_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise ImageDecodeError("x" * 501)

    monkeypatch.setattr(dataset, "decode_image", fail)
    (row,) = make_step()(batch_of(png())).to_pylist()
    assert row["error_message"] == "x" * 500


def test_an_empty_batch_stays_empty() -> None:
    done = make_step()(batch_of())
    assert done.num_rows == 0
    assert done.column_names == ["bytes", *RESULT_COLUMNS]


def test_another_column_can_hold_the_files() -> None:
    batch = pa.table({"jpg": pa.array([png()], pa.large_binary())})
    assert make_step(column="jpg")(batch)["status"].to_pylist() == ["ok"]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"bytes": np.array([b"x"])}, r'batch_format="pyarrow".*dict'),
        (pa.table({"path": ["a"]}), r"'bytes' must hold the bytes.*read_binary_files.*'path'"),
        (pa.table({"bytes": ["a"]}), r"'bytes' must hold the bytes.*string"),
        (batch_of(png(), width=[1], masks=[2]), r"adds \['masks', 'width'\]"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_by_what_to_do(batch: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_step()(batch)


def test_settings_are_those_of_a_run_and_checked_like_them() -> None:
    seen = []

    def make(config: Any) -> Any:
        seen.append(config)
        return make_threshold_generator(config)

    GenerateMasks(model={"variant": "tiny"}, amg={"points_per_side": 9}, make_generator=make)
    assert seen[0].amg.points_per_side == 9
    assert seen[0].amg == amg_settings("tiny", points_per_side=9), "the model's own defaults"
    with pytest.raises(ConfigError, match="points_per_side"):
        GenerateMasks(amg={"points_per_sid": 9}, make_generator=make)


@pytest.mark.ray
@pytest.mark.parametrize("gpus", [0, 1])
def test_an_actor_without_a_gpu_sees_none(local_ray: None, gpus: int) -> None:
    def seen_by() -> str | None:
        GenerateMasks(make_generator=make_threshold_generator)
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    seen = ray.get(ray.remote(seen_by).options(num_gpus=gpus).remote())
    assert (seen == "-1") == (gpus == 0)


@pytest.mark.slow
@pytest.mark.ray
def test_the_example_runs_as_it_is_documented(local_ray: None, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("cat.jpg", "coins.jpg", "flower.jpg"):
        shutil.copy(PHOTOS / name, folder)
    (folder / "broken.jpg").write_bytes(b"no image")

    # Ray Data warns of itself, so not in this process.
    done = subprocess.run(
        [sys.executable, "jobs/ray_data_example.py", folder, tmp_path / "out", "6"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
    )

    assert done.returncode == 0, done.stderr
    rows = {Path(row["path"]).name: row for row in pq.read_table(tmp_path / "out").to_pylist()}
    assert sorted(rows) == ["broken.jpg", "cat.jpg", "coins.jpg", "flower.jpg"]
    assert rows.pop("broken.jpg")["status"] == "decode_error"
    for row in rows.values():
        assert row["status"] == "ok"
        assert row["num_masks"] == len(row["masks"]) > 0
        for mask in row["masks"]:
            rle = parse_rle(mask["counts"], height=row["height"], width=row["width"])
            assert rle.area == mask["area"]
    assert "cat.jpg: ok" in done.stdout
