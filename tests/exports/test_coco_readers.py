"""COCO files, read by pycocotools, faster-coco-eval, supervision, datumaro and FiftyOne."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_tools
from pycocotools.coco import COCO

from tests.export.stored_runs import StoredMask, iou, required_iou, stored_masks
from tests.exports.conftest import Export

# Warnings of other people's programs are theirs.
pytestmark = [pytest.mark.exports, pytest.mark.filterwarnings("ignore")]


def _assert_equal(found: list[tuple[str, np.ndarray]], stored: list[StoredMask]) -> None:
    assert [name for name, _ in found] == [mask.image_id for mask in stored]
    for (_, mask), original in zip(found, stored, strict=True):
        assert np.array_equal(mask, original.mask)


def _assert_close(found: list[tuple[str, np.ndarray]], stored: list[StoredMask]) -> None:
    assert [name for name, _ in found] == [mask.image_id for mask in stored]
    checked = 0
    for (_, mask), original in zip(found, stored, strict=True):
        if not original.has_holes:
            assert iou(mask, original.mask) >= required_iou(int(original.mask.sum()))
            checked += 1
    assert checked > 20


def _read_with(coco: COCO) -> list[tuple[str, np.ndarray]]:
    return [
        (coco.imgs[annotation["image_id"]]["file_name"], coco.annToMask(annotation).astype(bool))
        for annotation in coco.dataset["annotations"]
    ]


@pytest.mark.parametrize("shape", ["mask", "polygon"])
def test_faster_coco_eval_reads_the_same_masks(
    export: Export, run_output: Path, shape: str
) -> None:
    from faster_coco_eval import COCO as FasterCoco  # noqa: N811

    coco = FasterCoco(str(export("coco", shape=shape) / "instances.json"))

    check = _assert_equal if shape == "mask" else _assert_close
    check(_read_with(coco), list(stored_masks(run_output)))


def test_faster_coco_eval_finds_every_mask_to_match_itself(export: Export) -> None:
    from faster_coco_eval import COCO as FasterCoco  # noqa: N811
    from faster_coco_eval import COCOeval_faster

    path = export("coco") / "instances.json"
    truth = FasterCoco(str(path))
    found = truth.loadRes(json.loads(path.read_text())["annotations"])
    evaluation = COCOeval_faster(truth, found, "segm")
    evaluation.params.maxDets = [1, 10, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()

    assert evaluation.stats[0] == pytest.approx(1.0)


def test_supervision_reads_coco(export: Export, run_output: Path) -> None:
    import supervision

    dest = export("coco")
    photos = run_output.parent / "photos"
    dataset = supervision.DetectionDataset.from_coco(
        str(photos), str(dest / "instances.json"), force_masks=True
    )
    found = [
        (str(Path(path).relative_to(photos)), mask)
        for path, _, detections in dataset
        for mask in (detections.mask if detections.mask is not None else [])
    ]

    assert dataset.classes == ["object"]
    _assert_equal(found, list(stored_masks(run_output)))


@pytest.mark.parametrize("shape", ["mask", "polygon"])
def test_datumaro_reads_the_zip_for_cvat(
    export: Export, run_output: Path, tmp_path: Path, shape: str
) -> None:
    import zipfile

    from datumaro.components.dataset import Dataset

    with zipfile.ZipFile(
        export("cvat", shape=shape, images=("[!b]*",)) / "annotations.zip"
    ) as archive:
        archive.extractall(tmp_path / "unpacked")
    # CVAT has the images already; datumaro looks for them beside the annotations.
    (tmp_path / "unpacked" / "images").symlink_to(run_output.parent / "photos")
    dataset = Dataset.import_from(str(tmp_path / "unpacked"), "coco")
    stored = [mask for mask in stored_masks(run_output) if mask.image_id == "a.png"]
    [item] = [item for item in dataset if item.id == "a"]

    assert len(dataset) == 3
    assert len({annotation.group for annotation in item.annotations}) == len(stored)
    drawn = [found for found in item.annotations if found.type.name == shape]
    assert {annotation.id for annotation in drawn} == set(range(1, len(stored) + 1))
    for annotation in drawn:
        original = stored[annotation.id - 1]
        if shape == "mask":
            assert np.array_equal(annotation.image, original.mask)
        elif original.is_plain:
            polygon = [list(map(float, annotation.points))]
            rle = mask_tools.merge(mask_tools.frPyObjects(polygon, *original.mask.shape))
            least = required_iou(int(original.mask.sum()))
            assert iou(mask_tools.decode(rle).astype(bool), original.mask) >= least


def test_fiftyone_importer_reads_the_same_masks(export: Export, run_output: Path) -> None:
    from fiftyone.utils.coco import COCODetectionDatasetImporter

    dest = export("fiftyone")
    importer = COCODetectionDatasetImporter(
        dataset_dir=str(dest), data_path="data.json", label_types="segmentations"
    )
    stored = list(stored_masks(run_output))
    found = []
    with importer:
        for path, metadata, detections in importer:
            assert Path(path).is_file()
            image_id = str(Path(path).relative_to(run_output.parent / "photos"))
            for detection in detections.detections if detections else []:
                left, top = (
                    round(detection.bounding_box[0] * metadata.width),
                    round(detection.bounding_box[1] * metadata.height),
                )
                mask = np.zeros((metadata.height, metadata.width), bool)
                rows, columns = detection.mask.shape
                mask[top : top + rows, left : left + columns] = detection.mask
                found.append((image_id, mask, detection.predicted_iou))

    found.sort(key=lambda entry: [mask.image_id for mask in stored].index(entry[0]))
    _assert_equal([entry[:2] for entry in found], stored)
    assert [entry[2] for entry in found] == [mask.predicted_iou for mask in stored]
