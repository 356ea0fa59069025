"""Views of labelled images: what the model sees of an image, and its masks in the same frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.model import SAM
from amg_pipeline.training.sources.labelled_image import LabelledImage
from amg_pipeline.training.views import (
    PHOTOGRAPHS,
    Augmentation,
    augmented_view,
    whole_view,
)

#: An image is read at most so many times larger than the model's frame, to cut parts out of it.
_DETAIL = 2
#: Views have their masks finer than low-res logits, so that these learn how far a pixel is covered.
MASK_DETAIL = 2


class ViewSource(Protocol):
    """Where `PromptedBatches` takes views from."""

    #: Side of the model frame and of the low-res logits, in pixels.
    size: int
    low_res: int
    #: Whether two views of an image differ.
    is_random: bool

    def __len__(self) -> int:
        """Count the images."""
        ...

    def draw(
        self, index: int, rng: np.random.Generator
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
        """Draw a view of an image: the trainer's inputs, and masks uint8 `(N, 2 S, 2 S)`."""
        ...


class LabelledViews:
    """Cuts views out of labelled images: the whole image, or random views of it.

    Args:
        images: Images with masks, as the readers of `training.sources` give them.
        sam: The model that will see them.
        augmentation: What may happen to an image; None shows every image as it is.
        keep_bytes: Decoded images are kept in memory up to this size in all.
    """

    def __init__(
        self,
        images: Sequence[LabelledImage],
        sam: SAM,
        *,
        augmentation: Augmentation | None = PHOTOGRAPHS,
        keep_bytes: int = 2 * 2**30,
    ) -> None:
        if not images:
            raise ConfigError("Training needs images with masks. Received: none.")
        self._images = images
        self._augmentation = augmentation
        self._keep_bytes = keep_bytes
        self._kept: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8], int]] = {}
        self._kept_bytes = 0
        self.is_random = augmentation is not None
        self.size = sam.image_encoder.img_size
        self.low_res = 4 * sam.image_encoder.grid_size[0]

    def __len__(self) -> int:
        return len(self._images)

    def draw(
        self, index: int, rng: np.random.Generator
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
        """Draw a view of an image."""
        if self._augmentation is None:
            return self.draw_whole(index)
        view, cut = augmented_view(
            rng,
            *self._read(index),
            size=self.size,
            label_size=MASK_DETAIL * self.low_res,
            augmentation=self._augmentation,
        )
        return {"image": view}, cut

    def draw_whole(self, index: int) -> tuple[dict[str, NDArray[Any]], NDArray[np.uint8]]:
        """Give the view of the whole image as it is."""
        view, cut = whole_view(
            *self._read(index), size=self.size, label_size=MASK_DETAIL * self.low_res
        )
        return {"image": view}, cut

    def _read(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Decode an image, or take it from memory, where masks are bits."""
        if index in self._kept:
            pixels, bits, width = self._kept[index]
            return pixels, np.unpackbits(bits, axis=-1, count=width)
        detail = _DETAIL if self.is_random else 1
        pixels, masks = self._images[index].read(detail * self.size)
        bits = np.packbits(masks, axis=-1)
        if self._kept_bytes + pixels.nbytes + bits.nbytes <= self._keep_bytes:
            self._kept_bytes += pixels.nbytes + bits.nbytes
            self._kept[index] = pixels, bits, masks.shape[2]
        return pixels, masks.view(np.uint8)
