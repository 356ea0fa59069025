"""Draws colours as photographs show them."""

from __future__ import annotations

import math

import numpy as np

from amg_pipeline.training.noise import Floats

# sRGB anchors of things seen in photographs: skies, foliage, soil, stone, skin, cloth, paint.
_ANCHORS = np.array(
    [
        (0.53, 0.70, 0.88), (0.78, 0.85, 0.92), (0.30, 0.48, 0.72), (0.62, 0.66, 0.70),
        (0.24, 0.36, 0.16), (0.40, 0.50, 0.22), (0.14, 0.22, 0.12), (0.52, 0.56, 0.34),
        (0.42, 0.32, 0.22), (0.58, 0.46, 0.32), (0.76, 0.66, 0.50), (0.30, 0.22, 0.16),
        (0.50, 0.48, 0.46), (0.34, 0.34, 0.36), (0.70, 0.68, 0.66), (0.88, 0.87, 0.85),
        (0.10, 0.10, 0.11), (0.20, 0.19, 0.20), (0.62, 0.30, 0.22), (0.72, 0.42, 0.28),
        (0.85, 0.66, 0.54), (0.62, 0.44, 0.34), (0.36, 0.24, 0.18), (0.93, 0.80, 0.70),
        (0.75, 0.12, 0.12), (0.90, 0.72, 0.14), (0.14, 0.26, 0.58), (0.86, 0.46, 0.12),
        (0.20, 0.36, 0.38), (0.60, 0.36, 0.56), (0.84, 0.52, 0.60), (0.95, 0.94, 0.90),
    ],
    np.float32,
)  # fmt: skip
_ANY_COLOUR = 0.08
_LUMA_WEIGHTS = np.array([0.3, 0.59, 0.11], np.float32)


def random_colour(rng: np.random.Generator) -> Floats:
    """Draw an RGB colour, mostly near one that photographs show."""
    if rng.random() < _ANY_COLOUR:
        colour = rng.uniform(0.05, 0.95, 3)
    else:
        colour = _ANCHORS[rng.integers(len(_ANCHORS))] * np.exp(
            rng.uniform(np.log(0.35), np.log(1.4))
        )
        colour = colour + rng.normal(0.0, 0.035, 3)
    return np.clip(colour, 0.02, 0.98).astype(np.float32)


def near_colour(rng: np.random.Generator, colour: Floats, *, contrast: float) -> Floats:
    """Draw a colour at about `contrast` (RGB distance) from another one."""
    step = 0.6 * rng.standard_normal(3) + rng.standard_normal()
    step *= contrast / max(math.sqrt(float(step @ step)), 1e-6)
    # Towards the far side where the colour would leave the range, so the contrast stays.
    moved = colour + step
    moved = np.where((moved < 0.02) | (moved > 0.98), colour - step, moved)
    return np.clip(moved, 0.02, 0.98).astype(np.float32)


def random_palette(rng: np.random.Generator, base: Floats | None = None) -> Floats:
    """Draw three colours, `(3, 3)`: a base and two that go with it."""
    first = random_colour(rng) if base is None else base
    second = (
        near_colour(rng, first, contrast=float(np.exp(rng.uniform(np.log(0.1), np.log(0.7)))))
        if rng.random() < 0.88
        else random_colour(rng)
    )
    third = near_colour(rng, second, contrast=float(rng.uniform(0.05, 0.4)))
    return np.stack([first, second, third])


def luminance(rgb: Floats) -> Floats:
    """Return the luma of planar RGB values `(3, ...)`, over the first axis."""
    red, green, blue = _LUMA_WEIGHTS
    return np.asarray(red * rgb[0] + green * rgb[1] + blue * rgb[2], np.float32)
