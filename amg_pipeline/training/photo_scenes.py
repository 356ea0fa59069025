"""Makes training scenes of photographs: their own masks, and what classical segmentation sees.

Synthetic scenes have exact masks but not the statistics of photographs. Photographs with few masks
have neither a part nor a background labelled. So each crop of a photograph, or each copy of a whole
one, is given the levels of a scene: in half of them three scales of a graph-based segmentation, in
the others what people marked; in crops with the segmentation's largest scale as the coarsest level.

Source: Felzenszwalb and Huttenlocher 2004, as scikit-image implements it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.label_maps import LEVELS, OBJECTS, PARTS, UNITS
from amg_pipeline.training.scene_cache import SceneCache, SceneCacheMeta, fill_cache
from amg_pipeline.training.scenes import Scene
from amg_pipeline.training.sources.coco import CocoImage

#: Raised whenever the same photographs and seed give other scenes than before.
PHOTO_SCENES_VERSION = 1
#: Photographs are read at up to this many pixels.
_READ_SIDE = 640
_LEAST_CROP = 0.45
#: Ranges of the scale parameter, finest level first, for scenes of 256 pixels.
_SCALES = ((40.0, 120.0), (150.0, 350.0), (500.0, 1200.0))
_SMOOTHING = 0.8
_MIN_REGION_AT_256 = 20
_MIN_MASK_SHARE = 0.001
#: A mask this much inside another one is a part of it.
_PART_OVERLAP = 0.8


@dataclass(frozen=True)
class PhotoScenes:
    """Renders photographs as scenes; the same index gives the same scene.

    Attributes:
        photos: The photographs.
        seed: Decides what is drawn.
        size: Longer side of a scene in pixels.
        whole: Whether a scene is a whole photograph, in its own shape, rather than a square crop.
    """

    photos: tuple[CocoImage, ...]
    seed: int
    size: int
    whole: bool = False

    def __call__(self, index: int) -> Scene:
        """Render the scene of an index; consecutive ones take the photographs in turn."""
        rng = np.random.default_rng((self.seed, index))
        photo = self.photos[index % len(self.photos)]
        if self.whole:
            image, masks = photo.read(self.size)
        else:
            image, masks = _crop(rng, *photo.read(_READ_SIDE), self.size)
        own = _own_levels(masks)
        if own[OBJECTS].any() and rng.random() < 0.5:
            if not self.whole:
                own[UNITS] = _segmented(rng, image, UNITS)
            return Scene(image, own)
        levels = [_segmented(rng, image, level) for level in range(len(LEVELS))]
        return Scene(image, np.stack(levels))


def _crop(
    rng: np.random.Generator, image: NDArray[np.uint8], masks: NDArray[np.bool_], size: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cut a square of random side out of a photograph and resize it."""
    height, width = image.shape[:2]
    side = max(1, int(min(height, width) * rng.uniform(_LEAST_CROP, 1.0)))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
    piece = Image.fromarray(image[top : top + side, left : left + side])
    at = ((np.arange(size) + 0.5) * side / size).astype(int)
    return (
        np.asarray(piece.resize((size, size), Image.Resampling.LANCZOS)),
        masks[:, (top + at)[:, None], left + at],
    )


def _own_levels(masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Lay a photograph's masks on the levels of parts and objects, small ones on large ones."""
    labels = np.zeros((len(LEVELS), *masks.shape[1:]), np.uint8)
    areas = masks.sum(axis=(1, 2))
    order = [i for i in np.argsort(-areas) if areas[i] >= _MIN_MASK_SHARE * masks[i].size]
    next_id = [1] * len(LEVELS)
    for place, i in enumerate(order):
        inside = any((masks[i] & masks[j]).sum() >= _PART_OVERLAP * areas[i] for j in order[:place])
        level = PARTS if inside else OBJECTS
        if next_id[level] <= 255:
            labels[level][masks[i]] = next_id[level]
            next_id[level] += 1
    return labels


def _segmented(rng: np.random.Generator, image: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """Segment at a random scale of a level; the 255 largest regions are numbered."""
    felzenszwalb = _felzenszwalb()
    shrink = max(image.shape[:2]) / 256
    low, high = _SCALES[level]
    regions = felzenszwalb(
        image,
        scale=float(np.exp(rng.uniform(np.log(low), np.log(high)))) * shrink,
        sigma=_SMOOTHING * shrink,
        min_size=max(4, round(_MIN_REGION_AT_256 * shrink**2)),
    )
    areas = np.bincount(regions.ravel())
    table = np.zeros(len(areas), np.uint8)
    largest = np.argsort(-areas, kind="stable")[:255]
    table[largest] = np.arange(1, len(largest) + 1)
    return table[regions]


def _felzenszwalb() -> Callable[..., NDArray[np.int64]]:
    try:
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise ConfigError(
            "Training on photographs needs scikit-image. Received: none installed. "
            "Install it: pip install 'amg_pipeline[train]'."
        ) from error
    segment: Callable[..., NDArray[np.int64]] = felzenszwalb
    return segment


def render_photo_scenes(
    directory: str | Path,
    photos: Sequence[CocoImage],
    *,
    copies: int,
    seed: int = 0,
    size: int = 256,
    whole: bool = False,
    processes: int = 2,
) -> SceneCache:
    """Render photographs into a folder; see `fill_cache`.

    Args:
        directory: Made if missing.
        photos: The photographs.
        copies: Scenes of each photograph.
        seed: Decides what is drawn.
        size: Longer side of a scene in pixels.
        whole: Whether a scene is a whole photograph rather than a square crop.
        processes: Worker processes; 1 renders in this process.

    Returns:
        The finished cache.

    Raises:
        ConfigError: If there are no photographs, one cannot be read, scikit-image is missing, or
            the folder holds other scenes.
    """
    if not photos:
        raise ConfigError("Expected photographs to make scenes of. Received: none.")
    render = PhotoScenes(tuple(photos), seed, size, whole)
    meta = SceneCacheMeta(
        count=copies * len(photos),
        size=size,
        seed=seed,
        source=("whole " if whole else "") + _fingerprint(render.photos),
    )
    return fill_cache(directory, meta, render, processes=processes)


def _fingerprint(photos: Sequence[CocoImage]) -> str:
    """Name photographs by their files' names, sizes and masks, wherever they lie."""
    listed = [(photo.path.name, photo.height, photo.width, photo.masks) for photo in photos]
    text = json.dumps(listed, sort_keys=True, default=np.ndarray.tolist)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"photos-{PHOTO_SCENES_VERSION}-{digest[:16]}"
