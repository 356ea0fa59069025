"""COCO instances: one JSON file for all images, read by pycocotools and most other tools.

With RLE no mask is decoded: the stored counts are COCO's own.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, BinaryIO

from amg_pipeline.export.json_text import to_json
from amg_pipeline.export.review_notes import review_notes
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.export.shapes import outline_polygons
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks

_CATEGORY = 1
#: Of the list of images, which waits until the masks are written, before it goes to disk.
_MEMORY_BYTES = 16 * 2**20
_COPY_BYTES = 2**20


def export_coco(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
    *,
    key: str = "instances.json",
) -> None:
    """Write all masks as COCO annotations.

    Args:
        images: What to write.
        destination: Where to.
        settings: `label`, `shape` (by default masks, as RLE) and `tolerance` count.
        tally: Takes note of what is not kept.
        key: Name of the file.
    """
    with destination.stream(key) as file:
        write_coco(images, file, settings, tally)


def write_coco(
    images: Iterable[ImageMasks],
    file: BinaryIO | IO[bytes],
    settings: ExportSettings,
    tally: ExportTally,
) -> None:
    """Write the JSON to an open file; see `export_coco`."""
    head = {
        "info": {"description": "Masks found by amg_pipeline", "version": "1.0"},
        "licenses": [],
        "categories": [{"id": _CATEGORY, "name": settings.label, "supercategory": ""}],
    }
    file.write(to_json(head)[:-1] + b',"annotations":[')
    # One pass over the run: what is said of the images waits, and comes last.
    with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as waiting:
        next_id = 1
        for number, image in enumerate(images, start=1):
            separator = b",\n" if number > 1 else b"\n"
            waiting.write(separator + to_json(_image(number, image)))
            rows = _annotations(image, number, next_id, settings, tally)
            texts = [to_json(row) for row in rows]
            if texts:
                file.write((b",\n" if next_id > 1 else b"\n") + b",\n".join(texts))
            next_id += len(texts)
        file.write(b'\n],"images":[')
        waiting.seek(0)
        while piece := waiting.read(_COPY_BYTES):
            file.write(piece)
    file.write(b"\n]}\n")


def _image(number: int, image: ImageMasks) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": image.image_id,
        "width": image.width,
        "height": image.height,
    }


def _annotations(
    image: ImageMasks,
    number: int,
    first_id: int,
    settings: ExportSettings,
    tally: ExportTally,
) -> Iterator[dict[str, Any]]:
    columns = zip(
        _segmentations(image, settings, tally),
        image.bbox_xywh.tolist(),
        image.area.tolist(),
        image.predicted_iou.tolist(),
        image.stability_score.tolist(),
        image.point_coords.tolist(),
        image.crop_box_xywh.tolist(),
        review_notes(image),
        strict=True,
    )
    for offset, (segmentation, bbox, area, iou, stability, point, crop, notes) in enumerate(
        columns
    ):
        yield {
            "id": first_id + offset,
            "image_id": number,
            "category_id": _CATEGORY,
            # 1 means a group that evaluation and training leave out, not the kind of notation.
            "iscrowd": 0,
            "area": area,
            "bbox": bbox,
            "segmentation": segmentation,
            "score": iou,
            "predicted_iou": iou,
            "stability_score": stability,
            "point_coords": [point],
            "crop_box": crop,
            **notes,
        }


def _segmentations(
    image: ImageMasks, settings: ExportSettings, tally: ExportTally
) -> Iterable[Any]:
    if settings.shape == "polygon":
        return outline_polygons(image, settings, tally)
    size = [image.height, image.width]
    return [{"size": size, "counts": counts} for counts in image.counts]
