"""Renders synthetic scenes with exact masks, for training promptable segmenters.

A scene is a painted background with objects laid over it from back to front, photographed by a
simulated camera. Masks are modal (what is seen) and come in levels, so that one click has a
part, an object and a larger unit as answers. Shadows, highlights and textures belong to the
surface they fall on; they make no masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.camera import photograph
from amg_pipeline.training.label_maps import LEVELS, OBJECTS, PARTS, UNITS
from amg_pipeline.training.layouts import paint_layout
from amg_pipeline.training.noise import noise_bank
from amg_pipeline.training.painter import ScenePainter

__all__ = [
    "HELD_OUT_SEED",
    "LEVELS",
    "OBJECTS",
    "PARTS",
    "SCENES_VERSION",
    "SMALLEST_SIZE",
    "UNITS",
    "Scene",
    "render_scene",
]

# Raised whenever the same seed gives other bytes than before.
SCENES_VERSION = 3
SMALLEST_SIZE = 32
#: Seeds from here on are held out: scenes to measure on, which no training sees.
HELD_OUT_SEED = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Scene:
    """A photograph-like picture and its masks.

    Attributes:
        image: uint8 `(height, width, 3)` RGB.
        label_maps: uint8 `(3, height, width)`, finest level first: parts of objects, objects,
            larger units (background regions and groups of like objects). 0 is "no mask at this
            level"; the others are the level's masks, numbered from 1 without gaps.
    """

    image: NDArray[np.uint8]
    label_maps: NDArray[np.uint8]


def render_scene(seed: int, size: int = 256) -> Scene:
    """Render one scene.

    Args:
        seed: Not negative; the same seed and size give the same bytes.
        size: Side of the square scene in pixels, at least 32.

    Returns:
        The scene.

    Raises:
        ConfigError: If `seed` or `size` is out of range.
    """
    if seed < 0:
        raise ConfigError(f"A scene's seed must be 0 or more. Received: {seed}.")
    if size < SMALLEST_SIZE:
        raise ConfigError(
            f"A scene's size must be at least {SMALLEST_SIZE} pixels. Received: {size}."
        )
    rng = np.random.default_rng(seed)
    bank = noise_bank(size)
    painter = ScenePainter(bank, rng, size)
    paint_layout(painter)
    return Scene(photograph(bank, rng, painter.canvas), painter.label_maps.finish())
