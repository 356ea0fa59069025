"""The images of a gallery: for each a picture with its masks, the photo, and the masks' outlines.

What a page's script reads of the masks is a script itself, since a page that is opened from a disk
may load nothing else.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.amg.rle import encode_mask, rle_to_coco
from amg_pipeline.errors import ImageError, StorageError
from amg_pipeline.report.overlays import draw_masks, picture_size, shrink
from amg_pipeline.report.sampled_masks import SampledMask, sample_masks
from amg_pipeline.storage.image_masks import ImageMasks

#: Long sides in pixels, of what is shown large and of what a gallery shows.
MAX_SIDE, THUMB_SIDE = 1280, 720
JPEG_QUALITY = 84
#: Names of the files of cards, and of nothing else.
CARD_FILE = re.compile(r"[0-9a-f]{16}-(?:photo\.jpg|thumb\.jpg|masks\.js)")
#: The grey below masks whose photo is not there.
_GROUND = 72

LoadPhoto = Callable[[ImageMasks], NDArray[np.uint8]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One image of a gallery.

    Attributes:
        image_id: Its name.
        key: How the names of its files begin.
        num_masks: Masks that it has.
        width: Columns of the image.
        height: Rows of the image.
        scores: Ranges of its masks' scores, in words; empty without masks.
        thumb_wh: Width and height of its picture; None if it has none.
        problem: Why its photo, or all of it, is not shown; None if it is.
    """

    image_id: str
    key: str
    num_masks: int
    width: int
    height: int
    scores: str
    thumb_wh: tuple[int, int] | None
    problem: str | None


def make_card(image: ImageMasks, load_photo: LoadPhoto) -> tuple[Card, Mapping[str, bytes]]:
    """Make one image's card and its files.

    Args:
        image: The image with the masks to show.
        load_photo: Reads its pixels; raises an `ImageError` where it cannot.

    Returns:
        The card, and the files by their names.
    """
    width, height = picture_size(image.width, image.height, max_side=MAX_SIDE)
    problem: str | None = None
    thumb_wh: tuple[int, int] | None = None
    files: dict[str, bytes] = {}
    key = hashlib.sha256(image.image_id.encode()).hexdigest()[:16]
    try:
        photo = shrink(load_photo(image), max_side=MAX_SIDE)
    except ImageError as error:
        problem = f"The photo cannot be shown: {error}"
        photo = np.full((height, width, 3), _GROUND, np.uint8)
    try:
        masks = sample_masks(image, width=width, height=height)
    except StorageError as error:
        problem = f"The masks cannot be shown: {error}"
    else:
        thumb = shrink(draw_masks(photo, masks), max_side=THUMB_SIDE)
        thumb_wh = (thumb.shape[1], thumb.shape[0])
        files = {
            f"{key}-photo.jpg": _to_jpeg(photo),
            f"{key}-thumb.jpg": _to_jpeg(thumb),
            f"{key}-masks.js": _to_script(key, image, masks, width=width, height=height),
        }
    card = Card(
        image_id=image.image_id,
        key=key,
        num_masks=len(image),
        width=image.width,
        height=image.height,
        scores=_describe_scores(image),
        thumb_wh=thumb_wh,
        problem=problem,
    )
    return card, files


def _to_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return file.getvalue()


def _to_script(
    key: str, image: ImageMasks, masks: list[SampledMask], *, width: int, height: int
) -> bytes:
    """Write the masks as a call with numbers and run lengths; no name gets into it."""
    data = {
        "width": width,
        "height": height,
        "pixels": image.width * image.height,
        "masks": [_to_row(image, mask, width / image.width) for mask in masks],
    }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return f'amgMasks("{key}",{text});\n'.encode("ascii")


def _to_row(image: ImageMasks, mask: SampledMask, scale: float) -> list[Any]:
    """Left, top, width, height, COCO counts of that window; scores, area, and the prompt's XY."""
    rows, columns = mask.pixels.shape
    x, y = image.point_coords[mask.index]
    return [
        mask.left,
        mask.top,
        columns,
        rows,
        rle_to_coco(encode_mask(mask.pixels))["counts"],
        _to_number(image.predicted_iou[mask.index], digits=4),
        _to_number(image.stability_score[mask.index], digits=4),
        int(image.area[mask.index]),
        _to_number(x * scale, digits=1),
        _to_number(y * scale, digits=1),
    ]


def _to_number(value: Any, *, digits: int) -> float | None:
    number = round(float(value), digits)
    return number if math.isfinite(number) else None


def _describe_scores(image: ImageMasks) -> str:
    if not len(image):
        return ""
    return f"predicted IoU {_span(image.predicted_iou)} · stability {_span(image.stability_score)}"


def _span(values: NDArray[np.float32]) -> str:
    # An empty mask has no stability: the ratio of two areas of zero.
    numbers = values[np.isfinite(values)]
    return f"{numbers.min():.2f}–{numbers.max():.2f}" if len(numbers) else "–"
