"""SA-1B's layout: one JSON file an image, boxes as the reference gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from amg_pipeline.export.json_text import to_json_line
from amg_pipeline.export.names import FileNames
from amg_pipeline.export.review_notes import review_notes
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks


def export_sa1b(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
) -> None:
    """Write a JSON file an image, named like the image.

    Source:
        The data set's own description: `image` with `image_id`, `width`, `height` and `file_name`;
        `annotations` with the keys of the reference's `generate`, and an `id`.
    """
    names, next_id = FileNames(), 1
    for number, image in enumerate(images, start=1):
        name, _ = names.choose(image.image_id)
        document = {
            "image": {
                "image_id": number,
                "width": image.width,
                "height": image.height,
                "file_name": image.image_id,
            },
            "annotations": _annotations(image, next_id),
        }
        next_id += len(image)
        destination.put(f"{name}.json", to_json_line(document))


def _annotations(image: ImageMasks, first_id: int) -> list[dict[str, Any]]:
    # Right minus left and bottom minus top: one less than the pixels that are covered.
    boxes = image.bbox_xywh - np.array([0, 0, 1, 1], np.float32) * (image.area > 0)[:, None]
    columns = zip(
        image.counts,
        boxes.astype(int).tolist(),
        image.area.tolist(),
        image.predicted_iou.tolist(),
        image.stability_score.tolist(),
        image.point_coords.tolist(),
        image.crop_box_xywh.tolist(),
        review_notes(image),
        strict=True,
    )
    return [
        {
            "id": first_id + offset,
            "segmentation": {"size": [image.height, image.width], "counts": counts},
            "bbox": bbox,
            "area": area,
            "predicted_iou": iou,
            "stability_score": stability,
            "point_coords": [point],
            "crop_box": crop,
            **notes,
        }
        for offset, (counts, bbox, area, iou, stability, point, crop, notes) in enumerate(columns)
    ]
