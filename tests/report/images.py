"""Rows of a run, made of bool arrays, without a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.rle import encode_mask, rle_to_coco
from amg_pipeline.storage.coco_rle import tight_boxes_xywh
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.image_scores import ImageScores, RowPlace


def make_image(
    masks: Sequence[NDArray[np.bool_]],
    *,
    image_id: str = "a.jpg",
    size: tuple[int, int] = (30, 40),
    ious: Sequence[float] | None = None,
    stabilities: Sequence[float] | None = None,
) -> ImageMasks:
    """An image of `size` (height, width), or of the size of its masks."""
    height, width = masks[0].shape if masks else size
    counts = [rle_to_coco(encode_mask(mask))["counts"] for mask in masks]
    count = len(masks)
    return ImageMasks(
        image_id=image_id,
        uri=f"/photos/{image_id}",
        status="ok",
        width=width,
        height=height,
        counts=counts,
        bbox_xywh=tight_boxes_xywh(counts, height=height, width=width),
        area=np.array([mask.sum() for mask in masks], np.int64),
        predicted_iou=np.array(ious or [0.9] * count, np.float32),
        stability_score=np.array(stabilities or [0.95] * count, np.float32),
        point_coords=np.full((count, 2), 3.0),
        crop_box_xywh=np.tile(np.int32([0, 0, width, height]), (count, 1)),
    )


def make_scores(
    image_id: str = "a.jpg",
    *,
    row: int = 0,
    ious: Sequence[float] = (0.9, 0.8),
    areas: Sequence[int] | None = None,
    status: str = "ok",
    error: tuple[str | None, str | None] = (None, None),
) -> ImageScores:
    return ImageScores(
        image_id=image_id,
        place=RowPlace(0, row),
        status=status,
        error_type=error[0],
        error_message=error[1],
        width=40,
        height=30,
        area=np.array(areas if areas is not None else [100] * len(ious), np.int64),
        predicted_iou=np.array(ious, np.float32),
        stability_score=np.array([0.9] * len(ious), np.float32),
    )


def box_mask(shape: tuple[int, int], rows: slice, columns: slice) -> NDArray[np.bool_]:
    mask = np.zeros(shape, np.bool_)
    mask[rows, columns] = True
    return mask
