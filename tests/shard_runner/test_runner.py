"""One shard from start to commit: what is written, and what is known before."""

from __future__ import annotations

import errno
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amg_pipeline.errors import StorageError
from amg_pipeline.planning import Plan
from amg_pipeline.records import DecodedImage, ImageRef, ImageResult, ShardReport
from amg_pipeline.shard_runner.runner import report_to_stats
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.local_files import LocalFiles
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from tests.photo_runs import Found, plan_photos, stored_masks, threshold_masks
from tests.shard_runner.photo_shards import Pixels, make_runner, rows_of, shards_of
from tests.storage.doubles import EAGER


def test_rows_hold_the_masks_of_their_images(plan: Plan, photos: Path) -> None:
    seen: list[str] = []
    make_runner(plan).run(
        shards_of(plan)[0], on_image=lambda result: seen.append(result.ref.image_id)
    )

    rows = rows_of(plan)
    assert list(rows) == seen == sorted(path.name for path in photos.iterdir())
    for name, row in rows.items():
        with Image.open(photos / name) as photo:
            pixels = np.asarray(photo)
        expected = threshold_masks(pixels).records
        assert row.status == "ok"
        assert (row.height, row.width) == pixels.shape[:2]
        assert [m.rle.counts.tolist() for m in row.masks] == [
            m.rle.counts.tolist() for m in expected
        ]


def test_report_counts_rows_masks_bytes_and_seconds(plan: Plan, photos: Path) -> None:
    (photos / "003.png").write_bytes(b"")

    report = make_runner(plan).run(shards_of(plan)[0])

    rows = rows_of(plan).values()
    assert report.shard_id == 0
    assert report.images == {"ok": 5, "decode_error": 1}
    assert report.unsettled == 0
    assert report.masks == sum(len(row.masks) for row in rows) >= 15
    assert report.bytes_written == len(plan.run_directory.read_shard(plan.stored, 0))
    assert set(report.stage_seconds) == {
        "load",
        "generate",
        "encode_masks",
        "encode_table",
        "commit",
    }
    assert all(seconds >= 0 for seconds in report.stage_seconds.values())


def test_report_is_stored_after_the_commit(plan: Plan) -> None:
    report = make_runner(plan).run(shards_of(plan)[0])

    (stored,) = plan.run_directory.read_stats([0])
    finished_at = stored.pop("finished_at")
    assert abs(finished_at - time.time()) < 60
    expected = report_to_stats(report)
    del expected["finished_at"]
    assert stored == expected


def test_report_to_stats_rounds_seconds() -> None:
    slowest = (("b.jpg", 1.00006), ("a.jpg", 0.5))
    report = ShardReport(3, {"ok": 2}, 1, 5, 100, {"load": 1.23456789}, 2.00004, slowest=slowest)

    stats = report_to_stats(report)
    del stats["finished_at"]
    assert stats == {
        "shard_id": 3,
        "images": {"ok": 2},
        "unsettled": 1,
        "masks": 5,
        "bytes_written": 100,
        "elapsed_seconds": 2.0,
        "stage_seconds": {"load": 1.2346},
        "slowest_images": [["b.jpg", 1.0001], ["a.jpg", 0.5]],
    }


def test_report_names_the_slowest_images(plan: Plan) -> None:
    [shard, *_] = shards_of(plan)

    report = make_runner(plan).run(shard)

    assert {image_id for image_id, _ in report.slowest} == {ref.image_id for ref in shard.images}
    seconds = [seconds for _, seconds in report.slowest]
    assert seconds == sorted(seconds, reverse=True)
    stages = ("load", "generate", "encode_masks")
    assert sum(seconds) == pytest.approx(sum(report.stage_seconds[name] for name in stages))


def test_images_are_read_as_the_settings_say(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    Image.new("RGB", (8, 3)).save(folder / "turned.jpg", exif=exif)
    sizes = {}
    for setting in ("true", "false"):
        plan = plan_photos(folder, tmp_path / setting, f"images.exif_orientation={setting}")
        make_runner(plan).run(shards_of(plan)[0])
        row = rows_of(plan)["turned.jpg"]
        sizes[setting] = (row.width, row.height)

    assert sizes == {"true": (3, 8), "false": (8, 3)}


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
def test_bytes_do_not_depend_on_threads(plan: Plan, tmp_path: Path, threads: int) -> None:
    make_runner(plan, threads=threads).run(shards_of(plan)[0])
    written = plan.run_directory.read_shard(plan.stored, 0)

    make_runner(plan, threads=3).run(shards_of(plan)[0])

    assert plan.run_directory.read_shard(plan.stored, 0) == written


class FullDisk(LocalFiles):
    """Refuses to write below one folder."""

    full = "masks/"

    def put(self, key: str, data: bytes) -> None:
        if key.startswith(self.full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().put(key, data)


class FullForStats(FullDisk):
    full = "_amg/stats/"


def test_full_disk_is_passed_on_and_leaves_nothing(plan: Plan, tmp_path: Path) -> None:
    directory = RunDirectory(ObjectStore(FullDisk(str(tmp_path / "out")), retry=EAGER))
    runner = make_runner(plan, directory=directory)

    with pytest.raises(StorageError, match="the disk is full"):
        runner.run(shards_of(plan)[0])

    assert not (tmp_path / "out" / "masks").exists()
    assert list(plan.run_directory.read_stats([0])) == []


def test_statistics_that_cannot_be_written_are_no_failure(plan: Plan, tmp_path: Path) -> None:
    directory = RunDirectory(ObjectStore(FullForStats(str(tmp_path / "out")), retry=EAGER))

    report = make_runner(plan, directory=directory).run(shards_of(plan)[0])

    assert report.images == {"ok": 6}
    assert plan.run_directory.committed(plan.stored) == {0}
    assert list(plan.run_directory.read_stats([0])) == []


def test_known_rows_are_taken_as_they_are_and_their_images_not_touched(plan: Plan) -> None:
    shard = shards_of(plan)[0]
    loaded: list[str] = []

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        loaded.append(ref.image_id)
        return load_image(ref, **options)

    crash = ImageResult(shard.images[1], "crash", error_type="X", error_message="died")
    runner = make_runner(plan, load=load)
    tried = runner.run_image(shard.images[4])
    loaded.clear()
    report = runner.run(shard, known={1: crash, 4: tried})

    assert sorted(loaded) == ["000.png", "002.png", "003.png", "005.png"]
    assert report.images == {"ok": 5, "crash": 1}
    assert report.unsettled == 1
    rows = rows_of(plan)
    assert list(rows) == [ref.image_id for ref in shard.images]
    assert (rows["001.png"].status, rows["001.png"].error_message) == ("crash", "died")
    with_known = stored_masks(plan.run_directory.uri)
    make_runner(plan).run(shard, known={1: crash})
    assert stored_masks(plan.run_directory.uri) == with_known


def test_one_image_gives_its_row_and_commits_nothing(plan: Plan, photos: Path) -> None:
    runner, shard = make_runner(plan), shards_of(plan)[0]
    (photos / "001.png").write_bytes(b"no image")

    rows = [runner.run_image(ref) for ref in shard.images[:2]]

    assert [row.status for row in rows] == ["ok", "decode_error"]
    assert stored_masks(plan.run_directory.uri) == {}


def test_a_second_shard_loads_while_the_first_has_the_model(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out", shard_size=3)
    first, second = shards_of(plan)
    loads_of_second = threading.Event()
    in_model: list[int] = []

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        if ref in second.images:
            loads_of_second.set()
        return load_image(ref, **options)

    def generate(pixels: Pixels) -> Found:
        in_model.append(1)
        assert sum(in_model) == 1, "two shards were in the model at once"
        # Would wait for ever if the second shard began to load only after the first.
        assert loads_of_second.wait(timeout=30)
        in_model.append(-1)
        return threshold_masks(pixels)

    runner = make_runner(plan, generate=generate, load=load)
    with ThreadPoolExecutor(2) as pool:
        reports = [pool.submit(runner.run, shard) for shard in (first, second)]
        assert sorted(report.result().shard_id for report in reports) == [0, 1]


def test_a_shard_that_loads_slowly_is_not_passed_by_the_next_one(
    photos: Path, tmp_path: Path
) -> None:
    """Where its first image hangs, all would otherwise seem well as long as others follow."""
    plan = plan_photos(photos, tmp_path / "out", shard_size=3)
    first, second = shards_of(plan)
    is_loading, go_on, is_second_loaded = (threading.Event() for _ in range(3))
    names: dict[bytes, str] = {}
    # As the model got them: what follows is done beside it, shard by shard.
    order: list[str] = []

    def load(ref: ImageRef, **options: Any) -> DecodedImage:
        if ref is first.images[0]:
            is_loading.set()
            assert go_on.wait(20)
        image = load_image(ref, **options)
        names[image.pixels.tobytes()] = ref.image_id
        if ref is second.images[-1]:
            is_second_loaded.set()
        return image

    def generate(pixels: Pixels) -> Found:
        order.append(names[pixels.tobytes()])
        return threshold_masks(pixels)

    runner = make_runner(plan, load=load, generate=generate)

    with ThreadPoolExecutor(2) as pool:
        reports = [pool.submit(runner.run, first)]
        assert is_loading.wait(20)
        reports.append(pool.submit(runner.run, second))
        assert is_second_loaded.wait(20)
        assert not order
        go_on.set()
        for report in reports:
            report.result()
    assert order == [f"{number:03d}.png" for number in range(6)]
