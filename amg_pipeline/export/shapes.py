"""Masks as polygons, for the formats that have them, with a note of what polygons cannot keep.

A polygon with fewer corners must still be the mask: it is rasterised as its readers will do it, and
one that misses too much of a thin or small mask keeps more corners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from amg_pipeline.export.pixels import decode_windows
from amg_pipeline.export.polygons import Ring, simplify, soften, to_centres, trace_outline
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.storage.coco_rle import parse_rle
from amg_pipeline.storage.image_masks import ImageMasks

FILLED_HOLES = "masks had holes, which polygons fill"

#: IoU with the mask, its holes filled, that a simplified polygon must reach.
_LEAST_IOU = 0.985

_Shape = tuple[int, int]
_Rasterise = Callable[[list[Ring], _Shape], NDArray[np.bool_]]


def outline_rings(
    image: ImageMasks, settings: ExportSettings, tally: ExportTally
) -> Iterator[list[Ring]]:
    """Turn each mask of an image into rings along the edges of its pixels, the largest first."""
    for parts, origin, shape in _outlines(image, tally):
        rings = _simplify(
            parts,
            [soften(part) for part in parts],
            rasterise_outline,
            shape,
            tolerance=settings.tolerance,
        )
        yield [ring + origin for ring in rings]


def outline_polygons(
    image: ImageMasks, settings: ExportSettings, tally: ExportTally
) -> Iterator[list[list[float]]]:
    """As `outline_rings`, each ring as COCO's flat list x, y, x, y, ..."""
    for rings in outline_rings(image, settings, tally):
        yield [ring.ravel().tolist() for ring in rings]


def centre_rings(
    image: ImageMasks, settings: ExportSettings, tally: ExportTally
) -> Iterator[list[Ring]]:
    """Turn each mask of an image into rings from pixel to pixel, the largest first."""
    for parts, origin, shape in _outlines(image, tally):
        exact = [to_centres(part) for part in parts]
        rings = _simplify(exact, exact, rasterise_centres, shape, tolerance=settings.tolerance)
        yield [ring + origin for ring in rings]


def rasterise_outline(rings: list[Ring], shape: _Shape) -> NDArray[np.bool_]:
    """Fill outline rings as pycocotools does."""
    polygons = [ring.ravel().tolist() for ring in rings]
    merged = coco.merge(coco.frPyObjects(polygons, *shape))
    # Its own decoder warns at each call that it is older than NumPy 2.
    runs = parse_rle(merged["counts"].decode(), height=shape[0], width=shape[1]).counts
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape[::-1]).T


def rasterise_centres(rings: list[Ring], shape: _Shape) -> NDArray[np.bool_]:
    """Fill centre rings, and the pixels on them, as Pillow does."""
    canvas = Image.new("L", shape[::-1])
    draw = ImageDraw.Draw(canvas)
    for ring in rings:
        draw.polygon(ring.ravel().tolist(), outline=1, fill=1)
    return np.array(canvas, bool)


def _outlines(
    image: ImageMasks, tally: ExportTally
) -> Iterator[tuple[list[Ring], NDArray[np.float64], _Shape]]:
    """Trace each mask within its box; give the box's origin and shape, too."""
    for window in decode_windows(image):
        outline = trace_outline(window.pixels)
        tally.notes[FILLED_HOLES] += outline.num_holes > 0
        rows, columns = window.pixels.shape
        yield list(outline.parts), np.array([window.left, window.top], np.float64), (rows, columns)


def _simplify(
    exact: list[Ring],
    rings: list[Ring],
    rasterise: _Rasterise,
    shape: _Shape,
    *,
    tolerance: float,
) -> list[Ring]:
    """Leave out points of `rings` as far as the mask that `exact` encloses stays the same."""
    if tolerance == 0:
        return exact
    target = rasterise(exact, shape)
    for stricter in (tolerance, tolerance / 2):
        simpler = [simplify(ring, tolerance=stricter) for ring in rings]
        found = rasterise(simpler, shape)
        union = np.count_nonzero(found | target)
        if np.count_nonzero(found & target) >= _LEAST_IOU * union:
            return simpler
    return exact
