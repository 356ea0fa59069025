"""LabelMe: one JSON file an image, with polygons or, without loss, with mask shapes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from typing import Any

from PIL import Image

from amg_pipeline.export.image_copies import path_from
from amg_pipeline.export.json_text import to_json_line
from amg_pipeline.export.names import FileNames
from amg_pipeline.export.pixels import MaskWindow, decode_windows
from amg_pipeline.export.review_notes import describe, review_notes
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.export.shapes import centre_rings
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks

#: The program's version whose files these are like; mask shapes came with 5.3.
_VERSION = "5.5.0"


def export_labelme(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
) -> None:
    """Write a JSON file an image, named like the image; the parts of a mask share a `group_id`."""
    names = FileNames()
    for image in images:
        key = f"{names.choose(image.image_id)[0]}.json"
        path = (
            path_from(destination.uri, key, image)
            if settings.image_root is None
            else settings.image_root + image.image_id
        )
        document: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": list(_shapes(image, settings, tally)),
            "imagePath": path,
            "imageData": None,
            "imageHeight": image.height,
            "imageWidth": image.width,
        }
        destination.put(key, to_json_line(document))


def _shapes(
    image: ImageMasks, settings: ExportSettings, tally: ExportTally
) -> Iterator[dict[str, Any]]:
    scores = list(zip(image.predicted_iou.tolist(), image.stability_score.tolist(), strict=True))
    notes = [describe(note) for note in review_notes(image)]
    for index, drawn in enumerate(_drawn(image, settings, tally)):
        iou, stability = scores[index]
        for shape in drawn:
            yield {
                "label": settings.label,
                **shape,
                "group_id": index,
                "description": notes[index],
                "flags": {},
                "predicted_iou": iou,
                "stability_score": stability,
            }


def _drawn(
    image: ImageMasks, settings: ExportSettings, tally: ExportTally
) -> Iterator[list[dict[str, Any]]]:
    if settings.shape == "mask":
        for window in decode_windows(image):
            yield [_mask_shape(window)]
        return
    for rings in centre_rings(image, settings, tally):
        yield [{"points": ring.tolist(), "shape_type": "polygon", "mask": None} for ring in rings]


def _mask_shape(window: MaskWindow) -> dict[str, Any]:
    rows, columns = window.pixels.shape
    file = io.BytesIO()
    Image.fromarray(window.pixels).save(file, "PNG")
    corners = [
        [window.left, window.top],
        [window.left + columns - 1, window.top + rows - 1],
    ]
    return {
        "points": corners,
        "shape_type": "mask",
        "mask": base64.b64encode(file.getvalue()).decode(),
    }
