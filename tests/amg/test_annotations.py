from __future__ import annotations

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from amg_pipeline.amg.annotations import record_to_annotation
from amg_pipeline.amg.rle import encode_mask
from amg_pipeline.records import CropBox, MaskRecord

MASK = np.zeros((6, 8), bool)
MASK[2:5, 3:7] = True
RECORD = MaskRecord(
    rle=encode_mask(MASK),
    box_xyxy=(3, 2, 6, 4),
    predicted_iou=float(np.float32(0.9)),
    stability_score=0.96875,
    point_coords=(4.5, 3.25),
    crop_box=CropBox(1, 0, 8, 6, layer=1),
)


def test_annotation_has_the_references_keys_in_its_order():
    annotation = record_to_annotation(RECORD, output_mode="binary_mask")
    segmentation = annotation.pop("segmentation")
    assert segmentation.dtype == bool
    np.testing.assert_array_equal(segmentation, MASK)
    assert list(annotation.items()) == [
        ("area", 12),
        ("bbox", [3, 2, 3, 2]),
        ("predicted_iou", float(np.float32(0.9))),
        ("point_coords", [[4.5, 3.25]]),
        ("stability_score", 0.96875),
        ("crop_box", [1, 0, 7, 6]),
    ]


# pycocotools 2.0.11 itself, with NumPy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("mode", ["coco_rle", "uncompressed_rle"])
def test_run_lengths_go_through_json_to_pycocotools(mode: str):
    annotation = json.loads(json.dumps(record_to_annotation(RECORD, output_mode=mode)))
    segmentation = annotation["segmentation"]
    assert segmentation["size"] == [6, 8]
    if mode == "uncompressed_rle":
        segmentation = coco_mask.frPyObjects(segmentation, 6, 8)
    np.testing.assert_array_equal(coco_mask.decode(segmentation), MASK)
