"""Smooth random fields and the resampling and blurring of float fields."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats: TypeAlias = NDArray[np.float32]

# The bank is part of the generator, not of a scene: a fixed seed makes it equal in every process.
_BANK_SEED = 20_230_405
_BANK_FRAMES = 3
_FINEST_CELL_PX = 1.0


class NoiseBank:
    """Holds octaves of smooth noise, made once and cropped at random.

    Octave 0 varies over the whole frame, octave k over `size / 2**k` pixels, and the last one is
    white. Each octave has zero mean and unit variance over the bank.

    Attributes:
        size: Side in pixels of the scenes that the bank serves.
        octaves: Float32 `(3 * size, 3 * size)` fields, coarsest first.
    """

    def __init__(self, size: int) -> None:
        rng = np.random.default_rng(_BANK_SEED)
        side = _BANK_FRAMES * size
        self.size = size
        self.octaves: list[Floats] = []
        cell = float(size)
        while cell >= _FINEST_CELL_PX:
            knots = max(2, round(side / cell)) + 1
            field = resize(rng.standard_normal((knots, knots)).astype(np.float32), side, side)
            field = (field - field.mean()) / field.std()
            self.octaves.append(field.astype(np.float32))
            cell /= 2.0
        # Ready-made sums of the fine octaves: most surfaces need some, and a crop costs nothing.
        self._grains = [
            self.fractal(rng, side, side, coarsest_px=size / 2**first, persistence=0.8)
            for first in range(1, 6)
        ]
        self._images = [Image.fromarray(field) for field in self.octaves]

    def octave_of(self, wavelength_px: float) -> int:
        """Return the octave whose cells are nearest to a wavelength."""
        octave = round(float(np.log2(self.size / max(wavelength_px, _FINEST_CELL_PX))))
        return min(max(octave, 0), len(self.octaves) - 1)

    def crop(self, rng: np.random.Generator, height: int, width: int, *, octave: int) -> Floats:
        """Return a random crop (a view, randomly mirrored) of one octave."""
        field = self.octaves[min(octave, len(self.octaves) - 1)]
        return _random_crop(field, rng, height, width)

    def grain(self, rng: np.random.Generator, height: int, width: int) -> Floats:
        """Return a random crop of fractal noise whose coarsest octave is drawn too."""
        field = self._grains[int(rng.integers(len(self._grains)))]
        return _random_crop(field, rng, height, width)

    def fractal(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        *,
        coarsest_px: float,
        finest_px: float = 1.0,
        persistence: float = 0.6,
    ) -> Floats:
        """Sum octaves from coarse to fine, each `persistence` times the one before.

        Returns:
            Float32 `(height, width)` of about zero mean and unit variance.
        """
        first, last = self.octave_of(coarsest_px), self.octave_of(finest_px)
        total = np.zeros((height, width), np.float32)
        amplitude, power = 1.0, 0.0
        for octave in range(first, max(first, last) + 1):
            total += np.float32(amplitude) * self.crop(rng, height, width, octave=octave)
            power += amplitude * amplitude
            amplitude *= persistence
        total *= np.float32(power**-0.5)
        return total

    def oriented(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        *,
        wavelength_px: float,
        angle: float,
        stretch: float,
    ) -> Floats:
        """Return noise drawn out `stretch` times (at least 1) along `angle`, in radians."""
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        along, across = 1.0 / max(stretch, 1.0), 1.0
        a, b = cos * cos * along + sin * sin * across, cos * sin * (along - across)
        d, e = b, sin * sin * along + cos * cos * across
        centre = self.size * _BANK_FRAMES / 2.0
        reach = max(0.0, centre - 0.75 * float(np.hypot(height, width)))
        x0, y0 = (centre + rng.uniform(-reach, reach, 2)).tolist()
        offset_x = x0 - a * width / 2 - b * height / 2
        offset_y = y0 - d * width / 2 - e * height / 2
        image = self._images[self.octave_of(wavelength_px)].transform(
            (width, height),
            Image.Transform.AFFINE,
            (a, b, offset_x, d, e, offset_y),
            Image.Resampling.BILINEAR,
        )
        return np.asarray(image, np.float32)


@lru_cache(maxsize=2)
def noise_bank(size: int) -> NoiseBank:
    """Return this process's noise bank for scenes of one size."""
    return NoiseBank(size)


def _random_crop(field: Floats, rng: np.random.Generator, height: int, width: int) -> Floats:
    top = int(rng.integers(field.shape[0] - height + 1))
    left = int(rng.integers(field.shape[1] - width + 1))
    flips = int(rng.integers(4))
    patch = field[top : top + height, left : left + width]
    return patch[:: 1 if flips & 1 else -1, :: 1 if flips & 2 else -1]


def resize(field: Floats, height: int, width: int) -> Floats:
    """Resample a float32 `(h, w)` field bicubically (averaging when it shrinks)."""
    image = Image.fromarray(np.ascontiguousarray(field, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def blur(field: Floats, sigma_px: float) -> Floats:
    """Blur a field by a Gaussian over its last two axes; the borders are repeated.

    Args:
        field: Float32 `(..., height, width)`.
        sigma_px: Standard deviation of the Gaussian, positive.

    Returns:
        A new float32 array of the same shape.
    """
    reach = max(1, round(2.5 * sigma_px))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    for axis in (field.ndim - 1, field.ndim - 2):
        widths = [(reach, reach) if a == axis else (0, 0) for a in range(field.ndim)]
        padded = np.pad(field, widths, mode="edge")
        length = field.shape[axis]
        before = (slice(None),) * axis
        total = taps[reach] * field
        for offset in range(1, reach + 1):
            low = padded[(*before, slice(reach - offset, reach - offset + length))]
            high = padded[(*before, slice(reach + offset, reach + offset + length))]
            total += taps[reach + offset] * (low + high)
        field = total
    return field
