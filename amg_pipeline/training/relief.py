"""Lights objects as if they had a third dimension: shading, highlights, rims."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from amg_pipeline.training.noise import Floats, resize
from amg_pipeline.training.sprites import Sprite


def linear_falloff(rng: np.random.Generator, height: int, width: int, *, strength: float) -> Floats:
    """Return a change of light across a patch, linear in x and y: `(height, width)` around 1."""
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    slope_x, slope_y = rng.normal(0.0, strength, 2).astype(np.float32)
    return np.asarray(np.maximum(1.0 + slope_x * x + slope_y * y, 0.2), np.float32)


def relief_shade(
    rng: np.random.Generator,
    sprite: Sprite,
    *,
    light: NDArray[np.float64],
    light_share: float,
    gloss: float,
) -> Floats:
    """Return the light on an object as factors around 1, float32 `(h, w)` of its patch.

    Args:
        rng: Source of all randomness.
        sprite: The object.
        light: Unit vector towards the light, scene XY.
        light_share: Strength of the shading; 0 lights the object evenly, without gloss.
        gloss: Strength of the highlight.
    """
    height, width = sprite.alpha.shape
    shade = np.ones((height, width), np.float32)
    share = np.float32(light_share)
    if not share:
        return shade
    x = np.arange(width, dtype=np.float32)[None, :] + np.float32(sprite.left + 0.5)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(sprite.top + 0.5)
    u, v = (
        np.float32(row[0]) * x + np.float32(row[1]) * y + np.float32(row[2])
        for row in sprite.to_unit
    )
    if sprite.relief == "cylinder":
        shade += share * (np.float32(np.sign(light[0])) * u * np.float32(0.8) - u * u)
    elif sprite.relief == "flat" or min(height, width) < 10:
        shade += share * np.float32(0.5) * (np.float32(light[0]) * u + np.float32(light[1]) * v)
    else:
        slope_x, slope_y = _dome_slopes(sprite.alpha)
        shade += share * np.clip(
            np.float32(light[0]) * slope_x + np.float32(light[1]) * slope_y, -1.0, 1.0
        )
    if gloss and sprite.relief != "flat":
        cx, cy = light * rng.uniform(0.25, 0.5)
        spot = rng.uniform(0.1, 0.3)
        shade += np.float32(gloss) * np.exp(
            -((u - np.float32(cx)) ** 2 + (v - np.float32(cy)) ** 2) / np.float32(spot * spot)
        )
    return np.maximum(shade, np.float32(0.15))


def _dome_slopes(alpha: Floats) -> tuple[Floats, Floats]:
    """Return the outward slopes, about [-1, 1], of a dome raised over a mask."""
    height, width = alpha.shape
    ratio = 24 / max(height, width)
    rows, columns = max(4, round(height * ratio)), max(4, round(width * ratio))
    plateau = np.pad(resize(alpha, rows, columns), 2)
    dome = _smoother(rows + 4) @ plateau @ _smoother(columns + 4)
    fall_x = 0.5 * (dome[2:-2, 1:-3] - dome[2:-2, 3:-1])
    fall_y = 0.5 * (dome[1:-3, 2:-2] - dome[3:-1, 2:-2])
    steepest = np.float32(max(float(np.hypot(fall_x, fall_y).max()), 1e-6))
    return (
        resize(np.asarray(fall_x / steepest, np.float32), height, width),
        resize(np.asarray(fall_y / steepest, np.float32), height, width),
    )


@lru_cache(maxsize=64)
def _smoother(num: int) -> Floats:
    """Return the `(num, num)` matrix that blurs one axis by a binomial of 13 taps."""
    once = 0.5 * np.eye(num) + 0.25 * (np.eye(num, k=1) + np.eye(num, k=-1))
    return np.linalg.matrix_power(once, 6).astype(np.float32)


def outlined(body: Floats, alpha: Floats, tone: float) -> Floats:
    """Darken or lighten the rim of an object, as drawings and some edges do."""
    image = Image.fromarray((alpha * 255).astype(np.uint8))
    core = np.asarray(image.filter(ImageFilter.MinFilter(3)), np.float32) / 255
    rim = np.clip(alpha - core, 0.0, 1.0)
    return np.asarray(body * (1.0 + (tone - 1.0) * rim), np.float32)
