"""Make `amg_goldens.json`: what the reference's algorithm finds in analytic scenes.

The reference's own `SamAutomaticMaskGenerator` runs on the logits of `tests.fakes.DiscSegmenter`
instead of a model's, so that the two algorithms can be compared bit by bit. Run it from the root
of the repository in an environment with `segment-anything-py`, `torchvision`, `pycocotools` and
`opencv-python-headless`:

    PYTHONPATH=. python tests/reference/make_amg_goldens.py
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator

from tests.fakes import DiscSegmenter, Shape, coordinate_image

GOLDENS = Path(__file__).with_name("amg_goldens.json")

SCENE = [
    Shape("disc", 62.0, 51.0, 30.0, 30.0, drift=0.05),
    Shape("disc", 70.0, 55.0, 9.0, 7.0, score=0.99, drift=0.1),
    Shape("rectangle", 128.0, 88.0, 22.0, 14.0, score=0.96, drift=0.02),
    Shape("rectangle", 150.0, 30.0, 30.0, 30.0, sharpness=1.5, score=0.98, drift=0.2),
    Shape("disc", 20.0, 110.0, 26.0, 18.0, score=0.95),
]
SPOTTED = [
    Shape(
        "disc", 60.0, 60.0, 34.0, 34.0, drift=0.1,
        holes=((50.0, 50.0, 4.0), (75.0, 66.0, 8.0)),
        islands=((120.0, 20.0, 3.0), (110.0, 100.0, 9.0)),
    ),
    Shape("rectangle", 128.0, 64.0, 14.0, 30.0, holes=((128.0, 64.0, 3.5),)),
    # Parts of fewer than 100 pixels only, two of them of the same size.
    Shape(
        "disc", 20.0, 104.0, 4.0, 4.0, score=0.99,
        islands=((36.0, 104.0, 4.0), (36.0, 118.0, 4.0), (51.0, 87.0, 4.0)),
    ),
]  # fmt: skip
WHOLE = [Shape("rectangle", 80.0, 65.0, 78.5, 63.5, sharpness=9.0, drift=0.0)]
LINE = [
    Shape("rectangle", 61.0, 0.0, 30.0, 30.0, drift=0.1),
    Shape("disc", 0.0, 90.0, 25.0, 25.0, drift=0.1),
    Shape("disc", 140.0, 0.0, 25.0, 25.0, sharpness=1.0, drift=0.1),
]

CASES: list[tuple[str, list[Shape], tuple[int, int], dict[str, Any]]] = [
    ("no_crops", SCENE, (130, 180), {"points_per_side": 16}),
    ("partial_batches", SCENE, (130, 180), {"points_per_side": 9, "points_per_batch": 7}),
    (
        "one_crop_layer",
        SCENE,
        (130, 180),
        {"points_per_side": 16, "crop_n_layers": 1, "crop_n_points_downscale_factor": 2},
    ),
    (
        "two_crop_layers",
        SCENE,
        (181, 127),
        {"points_per_side": 12, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2},
    ),
    ("small_regions", SPOTTED, (130, 160), {"points_per_side": 16, "min_mask_region_area": 100}),
    (
        "small_regions_with_crops",
        SPOTTED,
        (130, 160),
        {"points_per_side": 12, "crop_n_layers": 1, "min_mask_region_area": 100},
    ),
    (
        "small_background",
        WHOLE,
        (130, 160),
        {"points_per_side": 5, "min_mask_region_area": 2000, "pred_iou_thresh": 0.5},
    ),
    (
        "all_thresholds_zero",
        SCENE,
        (60, 90),
        {"points_per_side": 6, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0},
    ),
    (
        "all_thresholds_zero_with_crops",
        SCENE,
        (130, 180),
        {
            "points_per_side": 6,
            "pred_iou_thresh": 0.0,
            "stability_score_thresh": 0.0,
            "crop_n_layers": 1,
            "min_mask_region_area": 60,
        },
    ),
    (
        "loose_suppression",
        SCENE,
        (130, 180),
        {"points_per_side": 10, "box_nms_thresh": 0.95, "crop_nms_thresh": 0.3, "crop_n_layers": 1},
    ),
    (
        "stability_offset",
        SCENE,
        (130, 180),
        {"points_per_side": 10, "stability_score_offset": 3.0, "stability_score_thresh": 0.8},
    ),
    (
        "custom_grids",
        SCENE,
        (130, 180),
        {
            "points_per_side": None,
            "point_grids": [[[0.34, 0.39], [0.7, 0.7], [0.39, 0.42]], [[0.5, 0.5], [0.4, 0.6]]],
            "crop_n_layers": 1,
            "crop_overlap_ratio": 0.5,
        },
    ),
    ("one_row", LINE, (1, 200), {"points_per_side": 12, "stability_score_thresh": 0.8}),
    ("one_column", LINE, (150, 1), {"points_per_side": 6, "pred_iou_thresh": 0.5}),
    ("one_pixel", WHOLE, (1, 1), {"points_per_side": 2, "pred_iou_thresh": 0.0}),
]


class DiscPredictor:
    """The reference's `SamPredictor`, as far as its generator uses it."""

    def __init__(self, segmenter: DiscSegmenter) -> None:
        self.segmenter = segmenter
        self.model = SimpleNamespace(mask_threshold=0.0)
        self.transform = SimpleNamespace(apply_coords=lambda points, _size: points)
        self.device = torch.device("cpu")

    def set_image(self, image: np.ndarray) -> None:
        (self.embedding,) = self.segmenter.encode([image])

    def reset_image(self) -> None:
        del self.embedding

    def predict_torch(self, coords: Any, labels: Any, **_options: Any) -> tuple[Any, Any, None]:
        scored = self.segmenter.score(self.embedding, coords[:, 0].numpy())
        logits = [
            [self.segmenter.logits(self.embedding, point, output) for output in range(3)]
            for point in scored.points
        ]
        return torch.as_tensor(np.array(logits)), torch.as_tensor(scored.predicted_iou), None


def run_reference(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Find the masks of a case: annotations as JSON, `counts` in place of `segmentation`."""
    settings = dict(case["settings"])
    if settings.get("point_grids") is not None:
        settings["point_grids"] = [np.array(grid) for grid in settings["point_grids"]]
    model = SimpleNamespace(image_encoder=SimpleNamespace(img_size=1024))
    generator = SamAutomaticMaskGenerator(model, output_mode="coco_rle", **settings)
    generator.predictor = DiscPredictor(DiscSegmenter([Shape(**s) for s in case["shapes"]]))
    annotations = generator.generate(coordinate_image(case["height"], case["width"]))
    for annotation in annotations:
        annotation["counts"] = annotation.pop("segmentation")["counts"]
        if math.isnan(annotation["stability_score"]):
            annotation["stability_score"] = None
    return annotations


def main() -> None:
    """Run all cases and write the file."""
    goldens = []
    for name, shapes, (height, width), settings in CASES:
        case = {
            "name": name,
            "height": height,
            "width": width,
            "shapes": [vars(shape) for shape in shapes],
            "settings": settings,
        }
        case["masks"] = run_reference(case)
        goldens.append(case)
        print(f"{name}: {len(case['masks'])} masks")
    text = ",\n".join(json.dumps(case, separators=(",", ":")) for case in goldens)
    GOLDENS.write_text(f"[\n{text}\n]\n")


if __name__ == "__main__":
    main()
