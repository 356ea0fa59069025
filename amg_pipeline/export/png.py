"""Label maps: one 16-bit PNG an image, whose pixels are numbers of masks."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.errors import StorageError
from amg_pipeline.export.json_text import to_json_line
from amg_pipeline.export.names import FileNames
from amg_pipeline.export.pixels import decode_windows
from amg_pipeline.export.review_notes import review_notes
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks

HIDDEN = "masks lie under smaller ones as a whole and have no pixel of their own"
_MOST = 2**16 - 1


def export_png(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
) -> None:
    """Write `labels/*.png` and `instances.jsonl`, with the scores of each number.

    The maps are disjoint: where masks overlap, the smallest has the pixel. 0 is no mask, and mask
    `n` of an image is the n-th that is exported of it.
    """
    names = FileNames()
    with destination.stream("instances.jsonl") as index:
        for image in images:
            if len(image) > _MOST:
                raise StorageError(
                    f"A 16-bit label map has room for {_MOST} masks. Received: {len(image)} of "
                    f"{image.image_id!r}. Choose the best ones with --top-k"
                )
            key = f"labels/{names.choose(image.image_id)[0]}.png"
            labels = paint_labels(image)
            visible = np.bincount(labels.ravel(), minlength=len(image) + 1)[1:]
            tally.notes[HIDDEN] += int(np.count_nonzero(visible == 0))
            destination.put(key, _encode(labels))
            line = {
                "image_id": image.image_id,
                "labels": key,
                "masks": list(_instances(image, visible)),
            }
            index.write(to_json_line(line))


def paint_labels(image: ImageMasks) -> NDArray[np.uint16]:
    """Paint the masks of an image from the largest to the smallest; of equals the first is on top.

    Returns:
        Uint16 `(height, width)`: 1 for the first mask, 0 where none is.
    """
    labels = np.zeros((image.height, image.width), np.uint16)
    windows = list(decode_windows(image))
    for index in np.argsort(image.area, kind="stable")[::-1]:
        labels[windows[index].slices][windows[index].pixels] = index + 1
    return labels


def _instances(image: ImageMasks, visible: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    columns = zip(
        visible.tolist(),
        image.area.tolist(),
        image.predicted_iou.tolist(),
        image.stability_score.tolist(),
        review_notes(image),
        strict=True,
    )
    for number, (pixels, area, iou, stability, notes) in enumerate(columns, start=1):
        yield {
            "label": number,
            "visible_area": pixels,
            "area": area,
            "predicted_iou": iou,
            "stability_score": stability,
            **notes,
        }


def _encode(labels: NDArray[np.uint16]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "PNG")
    return file.getvalue()
