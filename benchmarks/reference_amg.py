"""Automatic mask generation with the reference, in the form that `mask_agreement` compares.

Only importable where the reference is installed (`requirements/parity.txt`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from benchmarks.mask_agreement import FoundMask, PointPredictor


def run_reference_amg(
    sam: Sam, image: NDArray[np.uint8], settings: dict[str, Any]
) -> list[FoundMask]:
    """Find the masks of an image."""
    generator = SamAutomaticMaskGenerator(sam, output_mode="coco_rle", **settings)
    try:
        annotations = generator.generate(image)
    except IndexError:
        # What it raises with crops if no mask survives in any of them.
        annotations = []
    return [FoundMask.from_annotation(annotation) for annotation in annotations]


def reference_point_predictor(sam: Sam) -> PointPredictor:
    """Give a function that predicts full-size logits of point prompts with the reference."""
    predictor = SamPredictor(sam)

    def predict(
        crop: NDArray[np.uint8], points: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        predictor.set_image(crop)
        coords = torch.as_tensor(predictor.transform.apply_coords(points, crop.shape[:2]))
        labels = torch.ones((len(points), 1), dtype=torch.int)
        logits, iou, _ = predictor.predict_torch(coords[:, None], labels, return_logits=True)
        return logits.numpy(), iou.numpy()

    return predict
