"""The formats without a program of their own, and what the others say beside the masks."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image
from pycocotools import mask as coco

from amg_pipeline.errors import StorageError
from amg_pipeline.export import parquet_masks, row_groups
from amg_pipeline.export.image_copies import path_from
from amg_pipeline.export.label_studio import address
from amg_pipeline.export.settings import ExportSettings
from amg_pipeline.export.yolo import BRIDGED, RENAMED
from amg_pipeline.selection import Selection
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.mask_table import load_masks
from tests.export.stored_runs import IMAGES, stored_masks, write_run
from tests.export.test_formats import run_export

# pycocotools 2.0.11 itself, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_sa1b_files_have_the_references_boxes(run_output: Path, tmp_path: Path) -> None:
    run_export("sa1b", run_output, tmp_path)
    found = [
        (document["image"]["file_name"], annotation)
        for path in [tmp_path / "a.json", tmp_path / "b/c d.json", tmp_path / "b/c d.webp.json"]
        for document in [json.loads(path.read_text())]
        for annotation in document["annotations"]
    ]
    stored = [mask for mask in stored_masks(run_output) if mask.image_id[0] in "ab"]

    assert [name for name, _ in found] == [mask.image_id for mask in stored]
    assert [annotation["id"] for _, annotation in found] == list(range(1, len(found) + 1))
    for (_, annotation), original in zip(found, stored, strict=True):
        assert np.array_equal(coco.decode(annotation["segmentation"]), original.mask)
        rows, columns = np.nonzero(original.mask)
        left, top, width, height = annotation["bbox"]
        assert (left, left + width) == (columns.min(), columns.max())
        assert (top, top + height) == (rows.min(), rows.max())
        assert all(isinstance(side, int) for side in annotation["bbox"])
        assert annotation["area"] == original.mask.sum()
    empty = json.loads((tmp_path / "empty.json").read_text())
    assert empty["annotations"] == []
    assert empty["image"]["width"] == 32


def test_yolo_has_a_line_a_mask_and_says_what_is_lost(run_output: Path, tmp_path: Path) -> None:
    tally = run_export("yolo", run_output, tmp_path)
    lines = (tmp_path / "labels/a.txt").read_text().splitlines()
    values = np.array(lines[7].split()[1:], float).reshape(-1, 2) * [128, 96]

    assert len(lines) == 10
    assert sorted(values.astype(int).tolist()) == [[20, 10], [20, 22], [35, 10], [35, 22]]
    assert np.round(values).tolist() == values.astype(int).tolist()
    assert (tmp_path / "labels/empty.txt").read_text() == ""
    assert tally.notes[RENAMED] == 1
    assert tally.notes[BRIDGED] == 4
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "train": "images",
        "val": "images",
        "names": {0: "object"},
    }


def test_yolo_takes_the_images_along(run_output: Path, tmp_path: Path) -> None:
    run_export("yolo", run_output, tmp_path, with_images=True)

    copied = (tmp_path / "images/b/c d.webp.webp").read_bytes()
    assert copied == (run_output.parent / "photos/b/c d.webp").read_bytes()


def test_image_that_is_gone_ends_the_export(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    (tmp_path / "photos/a.png").unlink()

    with pytest.raises(StorageError, match="needs every image"):
        run_export("yolo", output, tmp_path / "out", with_images=True)


def test_label_maps_are_disjoint_with_smaller_masks_on_top(
    run_output: Path, tmp_path: Path
) -> None:
    run_export("png", run_output, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "instances.jsonl").read_text().splitlines()]
    entry = lines[0]
    labels = np.array(Image.open(tmp_path / entry["labels"]))
    stored = [mask for mask in stored_masks(run_output) if mask.image_id == "a.png"]
    areas = [int(mask.mask.sum()) for mask in stored]

    assert [line["image_id"] for line in lines] == list(IMAGES)
    assert labels.dtype == np.uint16
    for label, original in enumerate(stored, start=1):
        smaller = [m.mask for m, area in zip(stored, areas, strict=True) if area < areas[label - 1]]
        visible = original.mask & ~np.any([*smaller, np.zeros_like(original.mask)], axis=0)
        assert np.array_equal(labels == label, visible)
        assert entry["masks"][label - 1]["visible_area"] == visible.sum()
        assert entry["masks"][label - 1]["area"] == areas[label - 1]


def test_image_with_more_masks_than_labels_is_refused(
    run_output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amg_pipeline.export.png._MOST", 3)

    with pytest.raises(StorageError, match="--top-k"):
        run_export("png", run_output, tmp_path / "out")


def test_duckdb_reads_one_row_a_mask(run_output: Path, tmp_path: Path) -> None:
    run_export("parquet-masks", run_output, tmp_path)
    rows = duckdb.sql(
        f"""SELECT image_id, height, width, counts, area, predicted_iou, mask_index, bbox_w, crop_w
        FROM '{tmp_path}/masks-*.parquet'"""
    ).fetchall()
    stored = list(stored_masks(run_output))

    assert len(rows) == len(stored)
    for row, original in zip(rows, stored, strict=True):
        image_id, height, width, counts, area, score, _, bbox_width, crop_width = row
        assert image_id == original.image_id
        decoded = coco.decode({"size": [height, width], "counts": counts})
        assert np.array_equal(decoded, original.mask)
        assert (area, score) == (original.mask.sum(), original.predicted_iou)
        assert bbox_width == np.ptp(np.nonzero(original.mask)[1]) + 1
        assert crop_width == width
    assert [row[6] for row in rows[:11]] == [*range(10), 0]


def test_tables_are_cut_into_files(
    run_output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_masks, "_GROUP_MASKS", 5)
    monkeypatch.setattr(parquet_masks, "_GROUPS", 2)
    run_export("parquet-masks", run_output, tmp_path)
    files = sorted(tmp_path.iterdir())

    assert [path.name for path in files] == ["masks-00000.parquet", "masks-00001.parquet"]
    assert sum(pq.read_metadata(path).num_rows for path in files) == 40


def test_export_of_no_masks_is_a_table_without_rows(run_output: Path, tmp_path: Path) -> None:
    run_export("parquet-masks", run_output, tmp_path, selection=Selection(top_k=0))

    assert duckdb.sql(f"SELECT count(*) FROM '{tmp_path}/*.parquet'").fetchall() == [(0,)]


def test_groups_close_by_masks_and_by_images(run_output: Path) -> None:
    from amg_pipeline.selection import select

    images = list(select(load_masks(str(run_output)), Selection()))
    by_masks = row_groups.group_images(images, masks=20, images_at_most=100)
    by_images = row_groups.group_images(images, masks=1000, images_at_most=4)

    assert [len(group) for group in by_masks] == [2, 4]
    assert [len(group) for group in by_images] == [4, 2]


def test_hugging_face_rows_have_lists_of_objects(run_output: Path, tmp_path: Path) -> None:
    run_export("hf-datasets", run_output, tmp_path, label="thing")
    rows = pq.read_table(tmp_path / "data/train-00000.parquet").to_pylist()
    card = yaml.safe_load((tmp_path / "README.md").read_text().split("---")[1])

    assert [row["image_id"] for row in rows] == list(IMAGES)
    assert rows[1]["objects"]["id"] == list(range(10, 20))
    assert set(rows[0]["objects"]["category"]) == {"thing"}
    assert rows[0]["image"]["bytes"] is None
    assert Path(rows[0]["image"]["path"]).is_file()
    named = [entry["name"] for entry in card["dataset_info"]["features"]]
    assert named == list(rows[0])
    objects = card["dataset_info"]["features"][-1]["struct"]
    assert [entry["name"] for entry in objects] == list(rows[0]["objects"])


def test_cvats_zip_has_one_member_without_a_date(run_output: Path, tmp_path: Path) -> None:
    run_export("cvat", run_output, tmp_path / "x.zip")

    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        [member] = archive.infolist()
        document = json.loads(archive.read(member))
    assert member.filename == "annotations/instances_default.json"
    assert member.date_time == (1980, 1, 1, 0, 0, 0)
    assert len(document["annotations"]) == 40


def test_fiftyone_knows_where_images_are(run_output: Path, tmp_path: Path) -> None:
    run_export("fiftyone", run_output, tmp_path / "here")
    run_export("fiftyone", run_output, tmp_path / "there", image_root="/mnt/")
    here = json.loads((tmp_path / "here/data.json").read_text())
    there = json.loads((tmp_path / "there/data.json").read_text())

    assert list(here) == list(there) == list(IMAGES)
    assert all(Path(path).is_file() for path in here.values())
    assert there["b/c d.png"] == "/mnt/b/c d.png"


def test_labelme_names_files_whose_names_are_no_text(tmp_path: Path) -> None:
    image = SimpleNamespace(uri=f"{tmp_path.as_uri()}/bad%FF.jpg", image_id="bad\\xff.jpg")
    path = path_from(str(tmp_path / "out"), "bad.json", cast(ImageMasks, image))
    assert path == "../bad\\xff.jpg"


def test_labelme_names_the_image_as_seen_from_its_file(run_output: Path, tmp_path: Path) -> None:
    run_export("labelme", run_output, tmp_path / "here")
    run_export("labelme", run_output, tmp_path / "there", image_root="../photos/")
    here = json.loads((tmp_path / "here/b/c d.json").read_text())
    there = json.loads((tmp_path / "there/b/c d.json").read_text())

    assert not Path(here["imagePath"]).is_absolute()
    assert (tmp_path / "here/b" / here["imagePath"]).is_file()
    assert there["imagePath"] == "../photos/b/c d.png"


def test_label_studio_tasks_are_cut_into_files(
    run_output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amg_pipeline.export.label_studio._PART_BYTES", 1)
    run_export("label-studio", run_output, tmp_path, image_root="https://x.org/")
    files = sorted(tmp_path.glob("tasks-*.json"))
    tasks = [json.loads(path.read_text()) for path in files]

    assert [len(part) for part in tasks] == [1] * len(IMAGES)
    assert tasks[1][0]["data"]["image"] == "https://x.org/b/c%20d.png"
    assert address("s3://bucket/", "b/c d.png") == "s3://bucket/b/c d.png"
    assert [region["id"] for region in tasks[0][0]["predictions"][0]["result"]] == [
        f"mask-{index}" for index in range(10)
    ]


def test_label_studio_without_images_has_an_empty_list(run_output: Path, tmp_path: Path) -> None:
    run_export("label-studio", run_output, tmp_path, selection=Selection(images=("none",)))

    assert json.loads((tmp_path / "tasks-00000.json").read_text()) == []


def test_default_label_is_one_for_all() -> None:
    assert ExportSettings().label == "object"
