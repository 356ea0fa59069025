"""Automatic mask generation with our model, in the form that `mask_agreement` compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.generator import AutomaticMaskGenerator
from amg_pipeline.config import amg_settings
from benchmarks.mask_agreement import FoundMask, PointPredictor

if TYPE_CHECKING:
    from amg_pipeline.sam.model import SAM

#: The combinations that parity is shown for, under the reference's names.
SETTINGS: dict[str, dict[str, Any]] = {
    "crops 0, area 0": {"crop_n_layers": 0, "min_mask_region_area": 0},
    "crops 1, downscale 2, area 0": {
        "crop_n_layers": 1,
        "crop_n_points_downscale_factor": 2,
        "min_mask_region_area": 0,
    },
    "crops 0, area 100": {"crop_n_layers": 0, "min_mask_region_area": 100},
}


def tiny_thresholds() -> dict[str, float]:
    """Give the thresholds of the preset `tiny`."""
    settings = amg_settings("tiny")
    return {
        "pred_iou_thresh": settings.pred_iou_thresh,
        "stability_score_thresh": settings.stability_score_thresh,
    }


def run_our_amg(generator: AutomaticMaskGenerator, image: NDArray[np.uint8]) -> list[FoundMask]:
    """Find the masks of an image; the generator's output mode must be "coco_rle"."""
    return [FoundMask.from_annotation(annotation) for annotation in generator.generate(image)]


def our_point_predictor(sam: SAM) -> PointPredictor:
    """Give a function that predicts full-size logits of point prompts with our model."""
    from keras import ops

    from amg_pipeline.sam.transforms import longest_side_size

    def predict(
        crop: NDArray[np.uint8], points: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        height, width = crop.shape[:2]
        input_size = longest_side_size(height, width, sam.image_encoder.img_size)
        coords = points * [input_size[1] / width, input_size[0] / height]
        sparse, dense = sam.prompt_encoder(
            points=(coords[:, None], np.ones((len(points), 1), np.int32))
        )
        logits, iou = sam.mask_decoder(
            image_embeddings=sam.image_encoder(sam.preprocess(crop[None])),
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        full = sam.postprocess_masks(logits, input_size, (height, width))
        return ops.convert_to_numpy(full), ops.convert_to_numpy(iou)

    return predict
