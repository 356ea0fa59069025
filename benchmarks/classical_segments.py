"""Classical segmentations of an image at several settings: what a learned model has to beat.

A method gives one label map per setting, coarse first. Settings span what is useful on photographs
of a sixth of a megapixel; which of them count is chosen afterwards, each method at its best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import color, filters, graph, measure, segmentation

#: Regions of fewer pixels are given to their neighbours.
_MIN_SIZE = 100

Image = NDArray[np.uint8]
Labels = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to segment.

    Attributes:
        title: For the table.
        settings: Names of the settings, coarse first.
        segment: Gives a label map per setting.
    """

    title: str
    settings: tuple[str, ...]
    segment: Callable[[Image], list[Labels]]


_FELZENSZWALB_SCALES = (3000, 2000, 1000, 500, 300, 200, 100, 50)
_SLIC_THRESHOLDS = (30, 22, 16, 12, 9, 6, 4)
_WATERSHED_MARKERS = (12, 25, 50, 100, 200, 400, 800)
_MERGING_THRESHOLDS = (0.3, 0.22, 0.16, 0.11, 0.08, 0.06, 0.04)
_MEAN_SHIFT_RADII = (45, 30, 20, 12)


def _felzenszwalb(image: Image) -> list[Labels]:
    return [
        segmentation.felzenszwalb(image, scale=scale, sigma=0.8, min_size=_MIN_SIZE)
        for scale in _FELZENSZWALB_SCALES
    ]


def _slic_merges(image: Image) -> list[Labels]:
    """Superpixels whose mean colours are nearer than a threshold become one region."""
    pixels = segmentation.slic(image, n_segments=400, compactness=10, start_label=1)
    neighbours = graph.rag_mean_color(color.rgb2lab(image), pixels)
    return [
        graph.cut_threshold(pixels, neighbours, threshold, in_place=False)
        for threshold in _SLIC_THRESHOLDS
    ]


def _gradient(image: Image) -> NDArray[np.float64]:
    smooth = filters.gaussian(color.rgb2lab(image), sigma=1.5, channel_axis=2)
    return np.max([filters.sobel(smooth[..., i]) for i in range(3)], axis=0) / 50.0


def _watershed(image: Image) -> list[Labels]:
    gradient = _gradient(image)
    return [segmentation.watershed(gradient, markers=count) for count in _WATERSHED_MARKERS]


def _boundary_merging(image: Image) -> list[Labels]:
    """Regions of a fine watershed are merged where the border between them is weakest."""
    gradient = _gradient(image)
    fine = segmentation.watershed(gradient, markers=500)
    merged = []
    for threshold in reversed(_MERGING_THRESHOLDS):
        # When all is one region, there is no border left to ask for.
        if (fine != fine[0, 0]).any():
            fine = graph.merge_hierarchical(
                fine,
                graph.rag_boundary(fine, gradient),
                thresh=threshold,
                rag_copy=False,
                in_place_merge=True,
                merge_func=_merge_borders,
                weight_func=_weigh_border,
            )
        merged.append(fine)
    return merged[::-1]


def _merge_borders(_graph: object, _source: int, _target: int) -> None:
    """Nothing of a region itself is needed."""


def _weigh_border(joined: graph.RAG, source: int, target: int, node: int) -> dict[str, float]:
    """Average the strength of the borders that become one, by their lengths."""
    absent = {"weight": 0.0, "count": 0}
    ends = [joined[end].get(node, absent) for end in (source, target)]
    count = ends[0]["count"] + ends[1]["count"]
    weight = sum(end["count"] * end["weight"] for end in ends) / count
    return {"count": count, "weight": weight}


def _mean_shift(image: Image) -> list[Labels]:
    """OpenCV's mean shift; neighbours of nearly one colour are a region."""
    # Only here: the tests of the other methods need no OpenCV.
    import cv2

    found = []
    for radius in _MEAN_SHIFT_RADII:
        flat = cv2.pyrMeanShiftFiltering(image, sp=12, sr=radius).astype(np.int16)
        steps = np.zeros((*flat.shape[:2], 2), bool)
        limit = max(2, radius // 6)
        steps[:, 1:, 0] = np.abs(np.diff(flat, axis=1)).max(axis=2) > limit
        steps[1:, :, 1] = np.abs(np.diff(flat, axis=0)).max(axis=2) > limit
        labels, _ = ndimage.label(~steps.any(axis=2))
        found.append(_without_small(labels))
    return found


def _without_small(labels: Labels) -> Labels:
    """Give pixels of no or of small regions to the nearest large one."""
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    is_large = sizes >= _MIN_SIZE
    if not is_large.any():
        return np.ones_like(labels)
    _, (rows, columns) = ndimage.distance_transform_edt(~is_large[labels], return_indices=True)
    return labels[rows, columns]


METHODS: Mapping[str, Method] = {
    "felzenszwalb": Method(
        "Felzenszwalb (scikit-image)",
        tuple(f"scale {scale}" for scale in _FELZENSZWALB_SCALES),
        _felzenszwalb,
    ),
    "slic": Method(
        "SLIC, merged by colour (scikit-image)",
        tuple(f"threshold {threshold}" for threshold in _SLIC_THRESHOLDS),
        _slic_merges,
    ),
    "watershed": Method(
        "watershed (scikit-image)",
        tuple(f"{count} markers" for count in _WATERSHED_MARKERS),
        _watershed,
    ),
    "merging": Method(
        "watershed, merged by borders (scikit-image)",
        tuple(f"threshold {threshold}" for threshold in _MERGING_THRESHOLDS),
        _boundary_merging,
    ),
    "mean_shift": Method(
        "mean shift (OpenCV)",
        tuple(f"radius {radius}" for radius in _MEAN_SHIFT_RADII),
        _mean_shift,
    ),
}


def segment_image(method: Method, image: Image) -> list[Labels]:
    """Segment an image; every region is connected, labels are from 1."""
    return [measure.label(labels + 1, connectivity=1) for labels in method.segment(image)]
