"""Exports for labelling tools and trainers, read by their own code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.export.stored_runs import IMAGES, iou, required_iou, stored_masks
from tests.exports.conftest import Export

# Warnings of other people's programs are theirs.
pytestmark = [pytest.mark.exports, pytest.mark.filterwarnings("ignore")]


def test_supervision_reads_yolo(export: Export, run_output: Path) -> None:
    import supervision

    dest = export("yolo", with_images=True)
    dataset = supervision.DetectionDataset.from_yolo(
        str(dest / "images"), str(dest / "labels"), str(dest / "data.yaml"), force_masks=True
    )
    found = {
        Path(path).name: detections.mask
        for path, _, detections in dataset
        if detections.mask is not None
    }
    # It looks into one folder only.
    stored = [mask for mask in stored_masks(run_output) if mask.image_id == "a.png"]

    assert dataset.classes == ["object"]
    assert len(found["a.png"]) == len(stored)
    plain = 0
    for mask, original in zip(found["a.png"], stored, strict=True):
        if original.is_plain:
            plain += 1
            assert iou(mask, original.mask) >= required_iou(int(original.mask.sum()))
    assert plain >= 5


@pytest.mark.parametrize("shape", ["polygon", "mask"])
def test_labelme_opens_each_file(export: Export, run_output: Path, shape: str) -> None:
    from labelme._label_file import read_label_file
    from labelme.utils.shape import shapes_to_label

    dest = export("labelme", shape=shape)
    stored = list(stored_masks(run_output))
    names = {path.stem: path for path in dest.rglob("*.json")}
    assert len(names) == len(IMAGES)
    opened = read_label_file(str(names["a"]))
    originals = [mask for mask in stored if mask.image_id == "a.png"]

    assert opened.image_data == (run_output.parent / "photos" / "a.png").read_bytes()
    assert {shape["group_id"] for shape in opened.shapes} == set(range(len(originals)))
    for index, original in enumerate(originals):
        shapes = [shape for shape in opened.shapes if shape["group_id"] == index]
        _, labels = shapes_to_label(original.mask.shape, shapes, {"object": 1})
        if shape == "mask":
            assert np.array_equal(labels > 0, original.mask)
        elif not original.has_holes:
            least = required_iou(int(original.mask.sum()))
            assert iou(labels > 0, original.mask) >= least


def test_label_studio_converter_decodes_the_same_brush_strokes(
    export: Export, run_output: Path
) -> None:
    from label_studio_sdk.converter.brush import decode_rle

    tasks = json.loads((export("label-studio") / "tasks-00000.json").read_text())
    stored = list(stored_masks(run_output))
    found = [
        (task["data"]["image_id"], region)
        for task in tasks
        for region in task["predictions"][0]["result"]
    ]

    assert len(tasks) == len(IMAGES)
    assert [image_id for image_id, _ in found] == [mask.image_id for mask in stored]
    for (_, region), original in zip(found, stored, strict=True):
        height, width = region["original_height"], region["original_width"]
        pixels = decode_rle(region["value"]["rle"]).reshape(height, width, 4)
        assert np.array_equal(pixels[..., 3] > 0, original.mask)
        assert (pixels[..., 0] == pixels[..., 3]).all()


@pytest.mark.parametrize("shape", ["mask", "polygon"])
def test_label_studio_accepts_config_and_regions(export: Export, shape: str) -> None:
    from label_studio_sdk.label_interface import LabelInterface

    dest = export("label-studio", shape=shape)
    interface = LabelInterface((dest / "label_config.xml").read_text())
    tasks = json.loads((dest / "tasks-00000.json").read_text())

    assert interface.validate() is None
    for task in tasks:
        assert interface.validate_task({"data": task["data"]})
        for prediction in task["predictions"]:
            assert interface.validate_prediction(prediction, return_errors=True) == []


def test_label_studio_converts_polygons_to_coco(
    export: Export, run_output: Path, tmp_path: Path
) -> None:
    from label_studio_sdk.converter import Converter
    from pycocotools.coco import COCO

    dest = export("label-studio", shape="polygon", image_root="")
    tasks = json.loads((dest / "tasks-00000.json").read_text())
    for number, task in enumerate(tasks, start=1):
        # What a labelling team gets by accepting all predictions.
        task["id"] = number
        task["annotations"] = [{"id": number, **task.pop("predictions")[0], "completed_by": 1}]
    (tmp_path / "accepted.json").write_text(json.dumps(tasks))
    converter = Converter((dest / "label_config.xml").read_text(), str(tmp_path))
    converter.convert_to_coco(str(tmp_path / "accepted.json"), str(tmp_path / "coco"), is_dir=False)
    coco = COCO(str(tmp_path / "coco" / "result.json"))

    plain = 0
    stored = {mask.image_id: [] for mask in stored_masks(run_output)}
    for mask in stored_masks(run_output):
        stored[mask.image_id].append(mask)
    for image in coco.dataset["images"]:
        task = tasks[image["id"]]
        regions = task["annotations"][0]["result"]
        found = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert len(found) == len(regions)
        for region, annotation in zip(regions, found, strict=True):
            original = (
                stored[task["data"]["image_id"]][int(region["id"].removeprefix("mask-"))]
                if "." not in region["id"]
                else None
            )
            if original is not None and original.is_plain:
                plain += 1
                mask = coco.annToMask(annotation).astype(bool)
                assert iou(mask, original.mask) >= required_iou(int(original.mask.sum()))
    assert plain > 20


def test_datasets_loads_the_folder(export: Export, run_output: Path, tmp_path: Path) -> None:
    import datasets
    from pycocotools import mask as coco

    dest = export("hf-datasets", with_images=True)
    rows = datasets.load_dataset(str(dest), split="train", cache_dir=str(tmp_path / "cache"))
    stored = list(stored_masks(run_output))

    assert rows["image_id"] == list(IMAGES) or list(rows["image_id"]) == list(IMAGES)
    assert rows[0]["image"].size == (128, 96)
    found = [
        coco.decode({"size": [row["height"], row["width"]], "counts": counts}).astype(bool)
        for row in rows
        for counts in row["objects"]["counts"]
    ]
    assert len(found) == len(stored)
    assert all(np.array_equal(a, b.mask) for a, b in zip(found, stored, strict=True))


def test_datasets_opens_images_where_they_are(export: Export, tmp_path: Path) -> None:
    import datasets

    rows = datasets.load_dataset(
        str(export("hf-datasets")), split="train", cache_dir=str(tmp_path / "cache")
    )

    assert [row["image"].size[::-1] for row in rows] == list(IMAGES.values())
