"""Another order of the same images for every epoch, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.training.sources.labelled_image import LabelledImage


def draw_order(count: int, *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Draw the order of so many images in an epoch, int64 `(count,)`."""
    return np.random.default_rng((seed, epoch)).permutation(count)


class Shuffled(Sequence[LabelledImage]):
    """A view of images in an order drawn by a seed; takes 8 bytes an image.

    Args:
        images: What is shuffled.
        seed: Decides the order, 0 or more.
        epoch: Another one gives another order, 0 or more.
    """

    def __init__(self, images: Sequence[LabelledImage], *, seed: int, epoch: int = 0) -> None:
        self._images = images
        self._order = draw_order(len(images), seed=seed, epoch=epoch)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> LabelledImage:  # type: ignore[override]
        return self._images[int(self._order[index])]

    def __iter__(self) -> Iterator[LabelledImage]:
        return (self._images[int(index)] for index in self._order)
