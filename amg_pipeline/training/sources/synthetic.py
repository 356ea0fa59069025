"""Synthetic scenes as images to train on; nothing is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.scenes import SMALLEST_SIZE, render_scene
from amg_pipeline.training.sources.labelled_image import Labelled, masks_of_labels, shrink


@dataclass(frozen=True, slots=True)
class SceneImage:
    """A scene that is painted each time when it is read.

    Attributes:
        seed: Of the scene.
        size: Its side in pixels.
    """

    seed: int
    size: int

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"scene-{self.seed}"

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self.size

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self.size

    def read(self, longest_side: int) -> Labelled:
        """Paint it; see `LabelledImage.read`. Parts lie in their objects, these in larger units."""
        scene = render_scene(self.seed, self.size)
        return shrink(scene.image, _all_levels(scene.label_maps), longest_side)


def read_synthetic(count: int, *, size: int = 256, seed: int = 0) -> list[SceneImage]:
    """List scenes `seed` to `seed + count - 1`.

    Args:
        count: Number of scenes.
        size: Side of a scene in pixels.
        seed: Seed of the first one, 0 or more.

    Raises:
        ConfigError: If an argument is out of range.
    """
    if count < 1 or size < SMALLEST_SIZE or seed < 0:
        raise ConfigError(
            f"Scenes need a count of at least 1, a size of at least {SMALLEST_SIZE} and a seed of "
            f"at least 0. Received: {count}, {size} and {seed}."
        )
    return [SceneImage(seed + index, size) for index in range(count)]


def _all_levels(label_maps: NDArray[np.uint8]) -> Iterator[NDArray[np.bool_]]:
    for labels in label_maps:
        yield from masks_of_labels(labels)
