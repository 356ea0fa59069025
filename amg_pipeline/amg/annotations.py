"""The dictionaries that `generate` returns: the reference's keys and conventions."""

from __future__ import annotations

from typing import Any, Literal

from amg_pipeline.amg.boxes import xyxy_to_reference_xywh
from amg_pipeline.amg.rle import decode_mask, rle_to_coco, rle_to_uncompressed
from amg_pipeline.records import MaskRecord, Rle

#: How `segmentation` is given: a bool array `(height, width)`, or one of COCO's two notations.
OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]


def record_to_annotation(record: MaskRecord, *, output_mode: OutputMode) -> dict[str, Any]:
    """Write a mask as the reference does.

    Returns:
        `segmentation`; `area` in pixels; `bbox` XYWH, whose width and height are right minus
        left and bottom minus top, without the one pixel more of COCO; `predicted_iou`;
        `point_coords`, a list with the one prompt [x, y]; `stability_score`; `crop_box` XYWH.
        Numbers are Python's own, so that all but the bool array can go to JSON.
    """
    return {
        "segmentation": _segmentation(record.rle, output_mode),
        "area": record.rle.area,
        "bbox": list(xyxy_to_reference_xywh(record.box_xyxy)),
        "predicted_iou": record.predicted_iou,
        "point_coords": [list(record.point_coords)],
        "stability_score": record.stability_score,
        "crop_box": list(record.crop_box.xywh),
    }


def _segmentation(rle: Rle, output_mode: OutputMode) -> Any:
    if output_mode == "binary_mask":
        return decode_mask(rle)
    if output_mode == "uncompressed_rle":
        return rle_to_uncompressed(rle)
    return rle_to_coco(rle)
