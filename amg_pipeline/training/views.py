"""Cuts augmented views of labelled images: part, shape, turn and colours drawn by a generator.

A view is what the model sees of a photograph: its longer side fills the model's frame, the rest is
padding below or to the right. Masks, points and boxes follow their image into it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.presets import PIXEL_MEAN

_LEAST_ASPECT = 0.6
_GRAY_SHARE = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How views differ from their images; shares are probabilities, the defaults suit photographs.

    Attributes:
        mirrored: Share that is mirrored.
        turned: Share that is turned, by one, two or three quarters alike.
        cropped: Share that shows a part of the image.
        least_crop: Smallest side of a part, as a fraction of the image's: the scale jitter.
        oblong: Share that is cut to another shape than the image's.
        least_zoom: Views are shrunk by up to this factor, so that they fill less of the frame; 1
            for none.
        recoloured: Share whose saturation, brightness and white balance are changed.

    Raises:
        ConfigError: If a value lies outside of (0, 1], or for shares [0, 1].
    """

    mirrored: float = 0.5
    turned: float = 0.24
    cropped: float = 0.6
    least_crop: float = 0.4
    oblong: float = 0.5
    least_zoom: float = 1.0
    recoloured: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mirrored", "turned", "cropped", "oblong", "recoloured"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must lie in [0, 1]. Received: {getattr(self, name)}")
        for name in ("least_crop", "least_zoom"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"{name} must lie in (0, 1]. Received: {getattr(self, name)}")


PHOTOGRAPHS = Augmentation()


@dataclass(frozen=True, slots=True)
class Framing:
    """Which part of an image a view shows, and how it lies in the frame.

    Attributes:
        image_hw: Height and width of the image.
        turns: Quarter turns against the clock.
        is_mirrored: Whether left and right change after that.
        part: Top, left, height and width of the part, in the image so turned.
        extent: Pixels of the image along a side of the frame.
    """

    image_hw: tuple[int, int]
    turns: int
    is_mirrored: bool
    part: tuple[int, int, int, int]
    extent: float

    def pixels(self, image: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        """Cut the view out of the image.

        Args:
            image: uint8 `(height, width, 3)` RGB.
            size: Side of the view in pixels.

        Returns:
            Float32 `(size, size, 3)` in 0 to 255, padded with the mean colour.
        """
        top, left, height, width = self.part
        rows, columns = (max(1, round(side * size / self.extent)) for side in (height, width))
        turned = self._turned(image[np.newaxis])[0]
        piece = np.ascontiguousarray(turned[top : top + height, left : left + width])
        resized = Image.fromarray(piece).resize((columns, rows), Image.Resampling.BILINEAR)
        pixels = np.empty((size, size, 3), np.float32)
        pixels[:] = PIXEL_MEAN
        pixels[:rows, :columns] = np.asarray(resized)
        return pixels

    def labels(self, labels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """Cut label maps, or masks that may overlap.

        Args:
            labels: uint8 or bool `(L, height, width)`, 0 where nothing is.
            size: Side of the result in pixels.

        Returns:
            `(L, size, size)` of the same type, padded with 0.
        """
        top, left, height, width = self.part
        cut = np.zeros((len(labels), size, size), labels.dtype)
        at = ((np.arange(size) + 0.5) * self.extent / size).astype(int)
        rows, columns = at[at < height], at[at < width]
        turned = self._turned(labels)
        cut[:, : len(rows), : len(columns)] = turned[:, (top + rows)[:, None], left + columns]
        return cut

    def points(self, points_xy: NDArray[np.floating], size: int) -> NDArray[np.float64]:
        """Move points into the view; those that it does not show lie outside, or in the padding.

        Args:
            points_xy: XY in pixels of the image, whose centres are whole numbers, `(..., 2)`.
            size: Side of the view in pixels.

        Returns:
            XY in pixels of the view, float64 `(..., 2)`.
        """
        x, y = (np.asarray(points_xy[..., axis], np.float64) for axis in (0, 1))
        height, width = self.image_hw
        for _ in range(self.turns):
            x, y = y, width - 1 - x
            height, width = width, height
        if self.is_mirrored:
            x = width - 1 - x
        top, left = self.part[:2]
        moved = np.stack([x - left, y - top], axis=-1)
        placed: NDArray[np.float64] = (moved + 0.5) * (size / self.extent) - 0.5
        return placed

    def boxes(self, boxes_xyxy: NDArray[np.floating], size: int) -> NDArray[np.float64]:
        """Move boxes into the view; see `points`. What lies outside of the view is cut off.

        Args:
            boxes_xyxy: Corners, the pixels of both inside, `(N, 4)`.
            size: Side of the view in pixels.

        Returns:
            Corners in pixels of the view, float64 `(N, 4)`.
        """
        corners = self.points(np.reshape(boxes_xyxy, (-1, 2, 2)), size)
        ordered = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        shown = np.array([self.part[3], self.part[2]] * 2) * (size / self.extent) - 1.0
        clipped: NDArray[np.float64] = np.clip(ordered, 0.0, np.maximum(shown, 0.0))
        return clipped

    def _turned(self, layers: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Turn and mirror `(L, height, width, ...)`, without a copy."""
        turned = np.rot90(layers, self.turns, axes=(1, 2))
        return turned[:, :, ::-1] if self.is_mirrored else turned


def frame_whole(image_hw: tuple[int, int]) -> Framing:
    """Show an image as it is, its longer side as long as the frame."""
    height, width = image_hw
    return Framing((height, width), 0, False, (0, 0, height, width), max(height, width))


def draw_framing(
    rng: np.random.Generator, image_hw: tuple[int, int], augmentation: Augmentation = PHOTOGRAPHS
) -> Framing:
    """Draw what is shown of an image, and how.

    Args:
        rng: Source of randomness.
        image_hw: Height and width of the image.
        augmentation: What may happen to it.
    """
    height, width = image_hw
    quarter = augmentation.turned / 3
    turns = int(rng.choice(4, p=(1.0 - 3 * quarter, quarter, quarter, quarter)))
    is_mirrored = bool(rng.random() < augmentation.mirrored)
    part = _draw_part(rng, (width, height) if turns % 2 else (height, width), augmentation)
    extent = float(max(part[2:]))
    if augmentation.least_zoom < 1.0:
        extent /= rng.uniform(augmentation.least_zoom, 1.0)
    return Framing((height, width), turns, is_mirrored, part, extent)


def whole_view(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], *, size: int, label_size: int
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Give an image as it is, resized to the model's frame and padded.

    Args:
        image: uint8 `(height, width, 3)` RGB.
        labels: uint8 `(L, height, width)`, 0 where a level has no mask; or bool, a mask a level.
        size: Side of the view in pixels.
        label_size: Side of its label maps in pixels.

    Returns:
        The view, float32 `(size, size, 3)` in 0 to 255, padded with the mean colour, and its label
        maps `(L, label_size, label_size)`, padded with 0.
    """
    framing = frame_whole((image.shape[0], image.shape[1]))
    return framing.pixels(image, size), framing.labels(labels, label_size)


def augmented_view(
    rng: np.random.Generator,
    image: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    *,
    size: int,
    label_size: int,
    augmentation: Augmentation = PHOTOGRAPHS,
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Give a random part of an image, mirrored, turned and recoloured.

    Args:
        rng: Source of randomness.
        image: uint8 `(height, width, 3)` RGB.
        labels: uint8 `(L, height, width)`, 0 where a level has no mask; or bool, a mask a level.
        size: Side of the view in pixels.
        label_size: Side of its label maps in pixels.
        augmentation: What may happen to it.

    Returns:
        As `whole_view`.
    """
    framing = draw_framing(rng, (image.shape[0], image.shape[1]), augmentation)
    pixels = framing.pixels(image, size)
    if augmentation.recoloured >= 1.0 or rng.random() < augmentation.recoloured:
        pixels = _recoloured(rng, pixels)
    return pixels, framing.labels(labels, label_size)


def _draw_part(
    rng: np.random.Generator, image_size: tuple[int, int], augmentation: Augmentation
) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a part."""
    height, width = float(image_size[0]), float(image_size[1])
    if rng.random() < augmentation.cropped:
        scale = rng.uniform(augmentation.least_crop, 1.0)
        height, width = height * scale, width * scale
    if rng.random() < augmentation.oblong:
        aspect = rng.uniform(_LEAST_ASPECT, 1.0)
        if rng.random() < 0.7:  # photographs are wide more often than tall
            height = min(height, width * aspect)
        else:
            width = min(width, height * aspect)
    rows, columns = max(8, int(height)), max(8, int(width))
    rows, columns = min(rows, image_size[0]), min(columns, image_size[1])
    top = int(rng.integers(image_size[0] - rows + 1))
    left = int(rng.integers(image_size[1] - columns + 1))
    return top, left, rows, columns


def _recoloured(rng: np.random.Generator, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Change saturation, brightness and white balance; the padding keeps the mean colour."""
    padding = (pixels == np.asarray(PIXEL_MEAN, np.float32)).all(axis=2)
    gray = pixels.mean(axis=2, keepdims=True)
    saturation = 0.0 if rng.random() < _GRAY_SHARE else rng.uniform(0.4, 1.2)
    gain = rng.uniform(0.7, 1.25) * rng.uniform(0.92, 1.08, 3)
    pixels = (gray + (pixels - gray) * saturation) * gain + rng.uniform(-20.0, 20.0)
    recoloured: NDArray[np.float32] = np.clip(pixels, 0.0, 255.0).astype(np.float32)
    recoloured[padding] = PIXEL_MEAN
    return recoloured
