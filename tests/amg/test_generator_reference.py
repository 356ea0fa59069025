"""Equality with the reference's own algorithm on analytic scenes.

The expected masks come from `tests/reference/make_amg_goldens.py`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.amg.generator import AutomaticMaskGenerator
from tests.fakes import DiscSegmenter, Shape, coordinate_image

GOLDENS = Path(__file__).parents[1] / "reference" / "amg_goldens.json"
CASES = json.loads(GOLDENS.read_text())


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_masks_boxes_scores_and_order_equal_the_reference(case: dict[str, Any]):
    segmenter = DiscSegmenter([Shape(**shape) for shape in case["shapes"]])
    generator = AutomaticMaskGenerator(segmenter, output_mode="coco_rle", **case["settings"])
    found = generator.generate(coordinate_image(case["height"], case["width"]))
    for annotation in found:
        segmentation = annotation.pop("segmentation")
        assert segmentation["size"] == [case["height"], case["width"]]
        annotation["counts"] = segmentation["counts"]
        if math.isnan(annotation["stability_score"]):
            annotation["stability_score"] = None
    assert found == case["masks"]


def test_goldens_are_worth_comparing():
    assert len(CASES) >= 15
    assert sum(len(case["masks"]) for case in CASES) > 300
    assert all(case["masks"] for case in CASES)
