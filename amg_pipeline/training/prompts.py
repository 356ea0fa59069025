"""Draws training prompts from label maps: clicks and noisy boxes, with all masks they may mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BACKGROUND_LABEL = -1  # no point: pads a click to the two tokens of a box
_CLICK_LABELS = (1, _BACKGROUND_LABEL)
_BOX_LABELS = (2, 3)
#: Share of the clicks for which a mask is drawn first.
_DRAWN_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompts of one image; `P` prompts of two tokens each.

    Attributes:
        coords: XY in pixels, float32 `(P, 2, 2)`.
        labels: Meaning of each token, int32 `(P, 2)`, as the prompt encoder reads them.
        target_ids: For each level of the label maps the id of the mask that the prompt may mean,
            0 for none, uint8 `(P, L)`.
        meant_levels: Which of these is meant, int32 `(P,)`: of a click on a mask drawn first its
            level, of any other one of those that have a mask.
    """

    coords: NDArray[np.float32]
    labels: NDArray[np.int32]
    target_ids: NDArray[np.uint8]
    meant_levels: NDArray[np.int32]


def drop_small_masks(label_maps: NDArray[np.uint8], min_area: float) -> NDArray[np.uint8]:
    """Clear the masks that cover less than a fraction of the image.

    Args:
        label_maps: uint8 `(L, height, width)`, 0 where a level has no mask.
        min_area: Least share of the image's pixels, in [0, 1].

    Returns:
        Label maps of the same shape; those given if nothing is to be dropped.
    """
    if min_area <= 0.0:
        return label_maps
    least = min_area * label_maps[0].size
    kept = np.zeros_like(label_maps)
    for level, label_map in enumerate(label_maps):
        areas = np.bincount(label_map.ravel(), minlength=256)
        kept[level] = np.where(areas >= least, np.arange(256), 0).astype(np.uint8)[label_map]
    return kept


def sample_prompts(
    rng: np.random.Generator, label_maps: NDArray[np.uint8], count: int, *, box_share: float = 0.2
) -> Prompts:
    """Draw prompts for one image.

    One click in five falls on any labelled pixel, as a grid's do; the others first choose a mask,
    so that large ones do not decide everything. A click means the masks of all levels at its
    pixel, a box only the mask that it bounds.

    Args:
        rng: Source of randomness.
        label_maps: uint8 `(L, height, width)`, 0 where a level has no mask.
        count: Number of prompts.
        box_share: Probability of a prompt being a box.
    """
    coords = np.zeros((count, 2, 2), np.float32)
    labels = np.tile(np.array(_CLICK_LABELS, np.int32), (count, 1))
    target_ids = np.zeros((count, len(label_maps)), np.uint8)
    meant = np.zeros(count, np.int32)
    candidates = _masks_of(label_maps)
    if not candidates:
        labels[:] = _BACKGROUND_LABEL
        return Prompts(coords, labels, target_ids, meant)
    labelled = np.flatnonzero(label_maps.any(axis=0))
    width = label_maps.shape[2]
    for i in range(count):
        level, mask_id = candidates[rng.integers(len(candidates))]
        if rng.random() < box_share:
            coords[i] = _noisy_box(rng, label_maps[level] == mask_id)
            labels[i] = _BOX_LABELS
            target_ids[i, level] = mask_id
            meant[i] = level
            continue
        is_drawn = rng.random() < _DRAWN_SHARE
        pixels = np.flatnonzero(label_maps[level] == mask_id) if is_drawn else labelled
        y, x = divmod(int(pixels[rng.integers(len(pixels))]), width)
        coords[i, 0] = (x, y)
        target_ids[i] = label_maps[:, y, x]
        meant[i] = level if is_drawn else rng.choice(np.flatnonzero(target_ids[i]))
    return Prompts(coords, labels, target_ids, meant)


def sample_mask_prompts(
    rng: np.random.Generator,
    masks: NDArray[np.uint8],
    count: int,
    *,
    box_share: float = 0.2,
    min_pixels: int = 1,
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.intp]]:
    """Draw prompts that mean one mask each.

    Masks are drawn without repetition as long as there are enough. A click falls anywhere in its
    mask.

    Args:
        rng: Source of randomness.
        masks: uint8 `(N, height, width)`, not 0 where covered.
        count: Number of prompts.
        box_share: Probability of a prompt being a noisy box.
        min_pixels: Masks of fewer pixels are not drawn.

    Returns:
        XY in pixels `(count, 2, 2)`; labels `(count, 2)`; and which mask is meant `(count,)`, -1
        if there is none to draw.
    """
    coords = np.zeros((count, 2, 2), np.float32)
    labels = np.tile(np.array(_CLICK_LABELS, np.int32), (count, 1))
    candidates = np.flatnonzero(masks.any(axis=(1, 2)))
    if min_pixels > 1:
        areas = np.count_nonzero(masks[candidates], axis=(1, 2))
        candidates = candidates[areas >= min_pixels]
    if not len(candidates):
        labels[:] = _BACKGROUND_LABEL
        return coords, labels, np.full(count, -1)
    turns = -(-count // len(candidates))
    meant = np.concatenate([rng.permutation(candidates) for _ in range(turns)])[:count]
    for i, number in enumerate(meant):
        mask = masks[number] > 0
        if rng.random() < box_share:
            coords[i], labels[i] = _noisy_box(rng, mask), _BOX_LABELS
            continue
        pixels = np.flatnonzero(mask)
        y, x = divmod(int(pixels[rng.integers(len(pixels))]), mask.shape[1])
        coords[i, 0] = (x, y)
    return coords, labels, meant


def draw_clicks(
    rng: np.random.Generator, label_maps: NDArray[np.uint8], count: int
) -> NDArray[np.int32]:
    """Draw labelled pixels: half of them any, half by first choosing a mask.

    Args:
        rng: Source of randomness.
        label_maps: uint8 `(L, height, width)`, 0 where a level has no mask.
        count: Number of clicks.

    Returns:
        Flat indices of pixels, int32 `(count,)`; zeros if nothing is labelled.
    """
    flat = label_maps.reshape(len(label_maps), -1)
    labelled = np.flatnonzero(flat.any(axis=0))
    if not len(labelled):
        return np.zeros(count, np.int32)
    clicks = labelled[rng.integers(len(labelled), size=count)]
    candidates = _masks_of(label_maps)
    for i in range(count // 2):
        level, mask_id = candidates[rng.integers(len(candidates))]
        pixels = np.flatnonzero(flat[level] == mask_id)
        clicks[i] = pixels[rng.integers(len(pixels))]
    return clicks.astype(np.int32)


def _masks_of(label_maps: NDArray[np.uint8]) -> list[tuple[int, int]]:
    return [
        (level, int(mask_id))
        for level, label_map in enumerate(label_maps)
        for mask_id in np.flatnonzero(np.bincount(label_map.ravel()))
        if mask_id
    ]


def _noisy_box(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Bound a mask, each side moved by up to a tenth of the box's own size.

    The paper moves it by at most 20 pixels of 1024.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], np.float32)
    size = box[1] - box[0] + 1.0
    noise = np.clip(rng.normal(0.0, 0.05, (2, 2)), -0.1, 0.1) * size
    limit = np.array([mask.shape[1] - 1, mask.shape[0] - 1], np.float32)
    noisy: NDArray[np.float32] = np.clip(box + noise, 0.0, limit).astype(np.float32)
    return noisy
