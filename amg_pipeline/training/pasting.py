"""Pastes things that people marked in some photographs into others.

Few photographs with masks are free, and a model comes to know them by heart. A thing in another
place, size and light has the same exact mask, and looks like a photograph of its own.

Source: Ghiasi et al. 2021 (arXiv:2012.07177), "Simple Copy-Paste".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.training.label_maps import OBJECTS, UNITS
from amg_pipeline.training.scenes import Scene

#: Things of a smaller or larger share of their photograph are not cut out.
_SHARES = (0.006, 0.35)
_MOST_PASTED = 3
#: Factors between which a thing is resized, and what it fills of the other photograph at the most.
_FACTORS = (0.45, 1.5)
_MOST_OF_SIDE = 0.8
#: Share of a thing's side that may lie outside.
_MOST_OUTSIDE = 0.25
_RELIT_SHARE = 0.7


@dataclass(frozen=True, slots=True)
class Cutout:
    """A thing without its surroundings: RGB and mask as uint8 `(height, width, 4)`, 255 inside."""

    rgba: NDArray[np.uint8]


def cut_out(scene: Scene) -> list[Cutout]:
    """Cut the objects out that people marked.

    Args:
        scene: A whole photograph. One that was segmented without people, which has units, gives
            nothing; nor do things that two edges of the photograph cut off.
    """
    labels = scene.label_maps[OBJECTS]
    if scene.label_maps[UNITS].any():
        return []
    numbers, areas = np.unique(labels[labels > 0], return_counts=True)
    low, high = (share * labels.size for share in _SHARES)
    return [
        cutout
        for number in numbers[(areas > low) & (areas < high)]
        if (cutout := _cut(scene.image, labels == number)) is not None
    ]


def paste(rng: np.random.Generator, scene: Scene, cutouts: Sequence[Cutout]) -> Scene:
    """Lay one to three things over a photograph, as objects without parts.

    Args:
        rng: Source of randomness.
        scene: The photograph, which is left as it is.
        cutouts: What is drawn from.
    """
    image, label_maps = scene.image.copy(), scene.label_maps.copy()
    for _ in range(int(rng.integers(1, _MOST_PASTED + 1))):
        number = int(label_maps[OBJECTS].max()) + 1
        if number > 255:
            break
        cutout = cutouts[int(rng.integers(len(cutouts)))]
        rgba = _relit(rng, _resized(rng, cutout.rgba, image.shape[:2]))
        alpha, (rows, columns) = _placed(rng, rgba, image.shape[:2])
        under = image[rows, columns]
        mixed = alpha[..., 3:] * alpha[..., :3] + (1.0 - alpha[..., 3:]) * under
        image[rows, columns] = np.round(mixed).astype(np.uint8)
        covered = alpha[..., 3] >= 0.5
        for level, labels in enumerate(label_maps):
            labels[rows, columns][covered] = number if level == OBJECTS else 0
    return Scene(image, label_maps)


def _cut(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Cutout | None:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    at = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    first, last = (rows[0], columns[0]), (rows[-1], columns[-1])
    ends = (mask.shape[0] - 1, mask.shape[1] - 1)
    if np.equal(first, 0).sum() + np.equal(last, ends).sum() > 1:
        return None
    return Cutout(np.dstack([image[at], mask[at].astype(np.uint8) * 255]))


def _resized(
    rng: np.random.Generator, rgba: NDArray[np.uint8], image_hw: tuple[int, ...]
) -> NDArray[np.float32]:
    """Resize and perhaps mirror a thing; gives colours in 0 to 255, coverage in 0 to 1."""
    height, width = rgba.shape[:2]
    low, high = np.log(_FACTORS)
    factor = min(
        float(np.exp(rng.uniform(low, high))),
        _MOST_OF_SIDE * image_hw[0] / height,
        _MOST_OF_SIDE * image_hw[1] / width,
    )
    rows, columns = (max(4, round(factor * side)) for side in (height, width))
    resized = Image.fromarray(rgba).resize((columns, rows), Image.Resampling.BILINEAR)
    thing = np.asarray(resized).astype(np.float32)
    thing[..., 3] /= 255.0
    return thing[:, ::-1] if rng.random() < 0.5 else thing


def _relit(rng: np.random.Generator, thing: NDArray[np.float32]) -> NDArray[np.float32]:
    """Put most things in another light."""
    if rng.random() >= _RELIT_SHARE:
        return thing
    gain = rng.uniform(0.7, 1.25) * rng.uniform(0.93, 1.07, 3)
    relit = thing.copy()
    relit[..., :3] = np.clip(thing[..., :3] * gain + rng.uniform(-15.0, 15.0), 0.0, 255.0)
    return relit


def _placed(
    rng: np.random.Generator, thing: NDArray[np.float32], image_hw: tuple[int, ...]
) -> tuple[NDArray[np.float32], tuple[slice, slice]]:
    """Draw a place; give what of the thing lies in the image, and the image's rows and columns."""
    inside, at = [], []
    for side, length in zip(thing.shape[:2], image_hw, strict=True):
        outside = int(_MOST_OUTSIDE * side)
        first = int(rng.integers(-outside, length - side + outside + 1))
        start, stop = max(first, 0), min(first + side, length)
        inside.append(slice(start - first, stop - first))
        at.append(slice(start, stop))
    return thing[inside[0], inside[1]], (at[0], at[1])
