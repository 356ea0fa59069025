"""Keeps the masks of a scene while it is painted, as one label map a level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.training.sprites import Sprite

LEVELS = ("parts", "objects", "units")
PARTS, OBJECTS, UNITS = range(3)
_MAX_ID = 255
_MIN_AREA_PX_AT_256 = 12
_MIN_VISIBLE_SHARE = 0.08
# A part that is nearly its whole object would be a second copy of the object's mask.
_MAX_PART_SHARE = 0.92
_MIN_REMAINDER_SHARE = 0.1


class LabelMaps:
    """Records regions and objects from back to front; what comes later hides what is there."""

    def __init__(self, size: int) -> None:
        self._size = size
        # Wide while painting; narrowed to 8 bits when the small masks are gone.
        self._labels = np.zeros((len(LEVELS), size, size), np.int32)
        self._next_id = [1] * len(LEVELS)
        self._full_area: dict[int, int] = {}  # object id -> pixels before anything covers it

    def new_unit(self) -> int:
        """Return a fresh id for a group of objects."""
        return self._take_ids(UNITS, 1)

    def lay_regions(self, regions: NDArray[np.uint8]) -> None:
        """Start with the regions of a background, `(size, size)`, 1 upwards."""
        first = self._take_ids(UNITS, int(regions.max()))
        self._labels[UNITS] = regions.astype(np.int32) + (first - 1)

    def lay_object(self, sprite: Sprite, *, unit_id: int = 0) -> None:
        """Add an object and its parts; `unit_id` is its group's, 0 for none."""
        rows, columns = sprite.window
        inside = sprite.alpha > 0.5
        area = int(inside.sum())
        object_id = self._take_ids(OBJECTS, 1)
        self._full_area[object_id] = area
        self._labels[OBJECTS, rows, columns][inside] = object_id
        self._labels[UNITS, rows, columns][inside] = unit_id
        parts = np.zeros(sprite.alpha.shape, np.int32)
        for layer in sprite.layers:
            seen = inside & (layer.alpha > 0.5) & (layer.ids > 0)
            first = self._take_ids(PARTS, int(layer.ids.max(initial=0)))
            parts[seen] = layer.ids[seen].astype(np.int32) + (first - 1)
        rest = inside & (parts == 0)
        if sprite.layers and rest.sum() > _MIN_REMAINDER_SHARE * area:
            parts[rest] = self._take_ids(PARTS, 1)
        self._labels[PARTS, rows, columns][inside] = parts[inside]

    def finish(self) -> NDArray[np.uint8]:
        """Drop masks too small or too hidden to see, number the others without gaps.

        Returns:
            uint8 `(3, size, size)`; see `Scene.label_maps`.
        """
        smallest = max(4, round(_MIN_AREA_PX_AT_256 * (self._size / 256) ** 2))
        parts, objects, units = self._labels
        part_areas, areas, unit_areas = (
            np.bincount(labels.ravel(), minlength=count)
            for labels, count in zip(self._labels, self._next_id, strict=True)
        )
        keep_object = areas >= smallest
        for object_id, area in self._full_area.items():
            keep_object[object_id] &= areas[object_id] >= _MIN_VISIBLE_SHARE * area
        owner_area = np.zeros(len(part_areas), np.int64)
        owner_area[parts] = areas[objects]
        keep_part = (part_areas >= smallest) & (part_areas <= _MAX_PART_SHARE * owner_area)
        keep_unit = unit_areas >= 4 * smallest
        # A group of which one object is left would be a second copy of that object's mask.
        num_pairs = len(unit_areas) * len(areas)
        pairs = np.bincount((units * len(areas) + objects).ravel(), minlength=num_pairs)
        members = np.count_nonzero(pairs.reshape(len(unit_areas), len(areas))[:, 1:], axis=1)
        keep_unit &= members != 1
        return np.stack(
            [
                _renumber(labels, keep, counts)
                for labels, keep, counts in zip(
                    self._labels,
                    (keep_part, keep_object, keep_unit),
                    (part_areas, areas, unit_areas),
                    strict=True,
                )
            ]
        )

    def _take_ids(self, level: int, count: int) -> int:
        first = self._next_id[level]
        self._next_id[level] += count
        return first


def _renumber(
    labels: NDArray[np.int32], keep: NDArray[np.bool_], areas: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Map kept ids to 1, 2, ... and the others, and all beyond the 255 largest, to 0."""
    keep[0] = False
    ids = np.flatnonzero(keep)
    if len(ids) > _MAX_ID:
        largest = np.argsort(areas[ids], kind="stable")[-_MAX_ID:]
        ids = np.sort(ids[largest])
    table = np.zeros(len(keep), np.uint8)
    table[ids] = np.arange(1, len(ids) + 1)
    return np.asarray(table[labels], np.uint8)
