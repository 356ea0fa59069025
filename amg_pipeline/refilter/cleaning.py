"""Changes of masks that users ask for and that no run makes; scores stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amg_pipeline.amg.boxes import mask_to_box
from amg_pipeline.amg.nms import suppress_contained, suppress_masks
from amg_pipeline.amg.packed_masks import pack_mask
from amg_pipeline.amg.rle import decode_window, encode_packed
from amg_pipeline.errors import ConfigError
from amg_pipeline.records import MaskRecord
from amg_pipeline.refilter.replay import to_candidates

_EIGHT_CONNECTED = np.ones((3, 3), bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class CleaningSettings:
    """What is done to masks, in this order; nothing by default.

    Attributes:
        fill_holes: Holes of at most so many pixels are filled.
        largest_component: Only the largest component stays; pixels that touch at a corner belong
            together.
        smooth: Radius in pixels of the disc by whose majority each pixel near the edge is decided.
        max_iou: Of two masks with a greater IoU the lower scored is dropped.
        max_containment: The same with the part of the smaller one that the other covers.
        disjoint: Each pixel belongs to one mask, the smallest there; masks without any are dropped.

    Raises:
        ConfigError: If a value is out of range.
    """

    fill_holes: int = 0
    largest_component: bool = False
    smooth: int = 0
    max_iou: float = 1.0
    max_containment: float = 1.0
    disjoint: bool = False

    def __post_init__(self) -> None:
        for name in ("fill_holes", "smooth"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be at least 0. Received: {getattr(self, name)}")
        for name in ("max_iou", "max_containment"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1]. Received: {getattr(self, name)}")

    def changes(self) -> dict[str, Any]:
        """Name what is to be done, with its value; empty where nothing is."""
        default = asdict(CleaningSettings())
        return {name: value for name, value in asdict(self).items() if value != default[name]}


def clean(records: Sequence[MaskRecord], settings: CleaningSettings) -> tuple[MaskRecord, ...]:
    """Change the masks of one image as settings say; those that are left keep their order."""
    cleaned = [_clean_one(record, settings) for record in records]
    if settings.max_iou < 1 or settings.max_containment < 1:
        cleaned = _drop_near_duplicates(cleaned, settings)
    return tuple(_make_disjoint(cleaned) if settings.disjoint else cleaned)


def fill_holes(mask: NDArray[np.bool_], *, at_most: int) -> NDArray[np.bool_]:
    """Fill components of the background that are enclosed and of at most so many pixels."""
    labels, _ = ndimage.label(np.pad(~mask, 1, constant_values=True), _EIGHT_CONNECTED)
    is_filled = np.bincount(labels.ravel()) <= at_most
    is_filled[[0, labels[0, 0]]] = False
    filled: NDArray[np.bool_] = mask | is_filled[labels][1:-1, 1:-1]
    return filled


def keep_largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the component with the most pixels, of equals the first by rows."""
    labels, number = ndimage.label(mask, _EIGHT_CONNECTED)
    if number < 2:
        return mask
    kept: NDArray[np.bool_] = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    return kept


def smooth_edges(mask: NDArray[np.bool_], *, radius: int) -> NDArray[np.bool_]:
    """Decide each pixel by the majority of a disc around it; beyond the border its pixels go on.

    A mask that would vanish stays as it is.
    """
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disc = (x**2 + y**2 <= radius**2).astype(np.int32)
    votes = ndimage.convolve(mask.astype(np.int32), disc, mode="nearest")
    smoothed: NDArray[np.bool_] = 2 * votes > int(disc.sum())
    return smoothed if smoothed.any() else mask


def _clean_one(record: MaskRecord, settings: CleaningSettings) -> MaskRecord:
    if record.rle.area == 0 or not (
        settings.fill_holes or settings.largest_component or settings.smooth
    ):
        return record
    left, top, right, bottom = record.box_xyxy
    margin = settings.smooth
    window = (
        max(left - margin, 0),
        max(top - margin, 0),
        min(right + 1 + margin, record.rle.width),
        min(bottom + 1 + margin, record.rle.height),
    )
    mask = decode_window(record.rle, window)
    if settings.fill_holes:
        mask = fill_holes(mask, at_most=settings.fill_holes)
    if settings.largest_component:
        mask = keep_largest(mask)
    if settings.smooth:
        mask = smooth_edges(mask, radius=settings.smooth)
    return _with_mask(record, mask, left=window[0], top=window[1])


def _with_mask(record: MaskRecord, mask: NDArray[np.bool_], *, left: int, top: int) -> MaskRecord:
    """Give a record other pixels, those of a window of the image."""
    x0, y0, x1, y1 = mask_to_box(mask)
    packed = pack_mask(mask, left=left, top=top)
    rle = encode_packed(packed, height=record.rle.height, width=record.rle.width)
    box = (left + x0, top + y0, left + x1, top + y1) if rle.area else (0, 0, 0, 0)
    return replace(record, rle=rle, box_xyxy=box)


def _drop_near_duplicates(
    records: list[MaskRecord], settings: CleaningSettings
) -> list[MaskRecord]:
    candidates = to_candidates(records)
    for threshold, suppress in (
        (settings.max_iou, suppress_masks),
        (settings.max_containment, suppress_contained),
    ):
        if threshold < 1:
            kept = suppress(candidates.masks, candidates.predicted_iou, threshold=threshold)
            order = np.sort(kept)
            records = [records[i] for i in order]
            candidates = candidates.take(order)
    return records


def _make_disjoint(records: list[MaskRecord]) -> list[MaskRecord]:
    """Paint the masks from the largest to the smallest, of equals the first last."""
    if not records:
        return records
    owner = np.zeros((records[0].rle.height, records[0].rle.width), np.int32)
    windows = [_window_of(record) for record in records]
    masks = [
        decode_window(record.rle, window) for record, window in zip(records, windows, strict=True)
    ]
    areas = np.array([record.rle.area for record in records])
    for index in np.argsort(areas, kind="stable")[::-1]:
        left, top, right, bottom = windows[index]
        owner[top:bottom, left:right][masks[index]] = index + 1
    visible = []
    for index, record in enumerate(records):
        left, top, right, bottom = windows[index]
        mask = owner[top:bottom, left:right] == index + 1
        if mask.any():
            visible.append(_with_mask(record, mask, left=left, top=top))
    return visible


def _window_of(record: MaskRecord) -> tuple[int, int, int, int]:
    left, top, right, bottom = record.box_xyxy
    return (left, top, right + 1, bottom + 1)
