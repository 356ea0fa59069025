"""COCO files, read by pycocotools; other readers are in tests/exports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from amg_pipeline.selection import Selection
from tests.export.stored_runs import IMAGES, iou, required_iou, stored_masks
from tests.export.test_formats import run_export

# pycocotools 2.0.11 itself, with NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_rle_decodes_to_the_stored_masks(run_output: Path, tmp_path: Path) -> None:
    run_export("coco", run_output, tmp_path)
    coco = COCO(str(tmp_path / "instances.json"))
    stored = list(stored_masks(run_output))

    assert [image["file_name"] for image in coco.dataset["images"]] == list(IMAGES)
    assert sorted(coco.anns) == list(range(1, len(stored) + 1))
    for annotation, original in zip(coco.dataset["annotations"], stored, strict=True):
        assert coco.imgs[annotation["image_id"]]["file_name"] == original.image_id
        assert isinstance(annotation["segmentation"]["counts"], str)
        assert annotation["iscrowd"] == 0
        assert np.array_equal(coco.annToMask(annotation), original.mask)
        assert annotation["score"] == annotation["predicted_iou"] == original.predicted_iou
        assert annotation["stability_score"] == original.stability_score


@pytest.mark.parametrize("tolerance", [0, 0.5])
def test_polygons_cover_masks_without_holes(
    run_output: Path, tmp_path: Path, tolerance: float
) -> None:
    run_export("coco", run_output, tmp_path, shape="polygon", tolerance=tolerance)
    coco = COCO(str(tmp_path / "instances.json"))
    checked = 0

    for annotation, original in zip(
        coco.dataset["annotations"], stored_masks(run_output), strict=True
    ):
        if not original.has_holes:
            found = coco.annToMask(annotation).astype(bool)
            least = 1.0 if tolerance == 0 else required_iou(int(original.mask.sum()))
            assert iou(found, original.mask) >= least
            checked += 1
    assert checked > 20


def test_run_without_wanted_images_gives_a_valid_file(run_output: Path, tmp_path: Path) -> None:
    run_export("coco", run_output, tmp_path, selection=Selection(images=("none",)))
    document = json.loads((tmp_path / "instances.json").read_text())

    assert document["images"] == document["annotations"] == []
    assert COCO(str(tmp_path / "instances.json")).getCatIds() == [1]


def test_label_names_the_category(run_output: Path, tmp_path: Path) -> None:
    run_export("coco", run_output, tmp_path, label='a "thing"')

    assert COCO(str(tmp_path / "instances.json")).cats[1]["name"] == 'a "thing"'
