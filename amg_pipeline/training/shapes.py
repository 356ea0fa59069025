"""Describes outlines: figures, the parts painted on them, and the shapes that they make up.

Shapes live in the unit frame: x right, y down, about [-1, 1] both ways, upright.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]
Relief: TypeAlias = Literal["dome", "cylinder", "flat"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One outline: a filled polygon, or a stroke along a line when `width` is positive."""

    points: Points  # (n, 2) XY, unit frame
    width: float = 0.0  # of the stroke, unit frame; 0 fills the polygon


@dataclass(frozen=True, slots=True)
class PartLayer:
    """Parts of one material, painted together; each figure is a part of its own."""

    figures: tuple[Figure, ...]
    tone: float | None = None  # times the body's own colour; None paints a new surface
    joined: bool = False  # all figures together are one part


@dataclass(frozen=True, slots=True)
class Shape:
    """A thing: the union of its body figures less its holes, with parts painted on it."""

    body: tuple[Figure, ...]
    holes: tuple[Figure, ...] = ()
    layers: tuple[PartLayer, ...] = ()
    relief: Relief = "dome"


def is_upright(shape: Shape) -> bool:
    """Tell whether the shape has a natural bottom (it is made of several figures)."""
    return len(shape.body) > 1


def ellipse(x: float, y: float, radius_x: float, radius_y: float, *, num: int = 40) -> Points:
    """Return a closed ellipse as a polygon."""
    cos, sin = _circle(num)
    return np.stack([x + radius_x * cos, y + radius_y * sin], axis=1)


@lru_cache(maxsize=16)
def _circle(num: int) -> tuple[Points, Points]:
    angle = np.linspace(0.0, 2 * np.pi, num, endpoint=False)
    return np.cos(angle), np.sin(angle)


def box(x0: float, y0: float, x1: float, y1: float) -> Points:
    """Return an axis-parallel rectangle as a polygon."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], float)


def contour(rng: np.random.Generator, *, harmonics: int, roughness: float, num: int = 96) -> Points:
    """Return a closed star-shaped contour of about unit radius, by random Fourier terms."""
    angle = np.linspace(0.0, 2 * np.pi, num, endpoint=False)
    radius = np.ones(num)
    for k in range(2, harmonics + 1):
        radius += roughness / k**0.9 * rng.normal() * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    radius = np.maximum(radius, 0.15)
    radius /= radius.max()
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def curve(rng: np.random.Generator, *, bends: int, num: int = 48) -> Points:
    """Return a smooth open line through the unit frame."""
    t = np.linspace(-1.0, 1.0, num)
    y = sum(
        rng.normal(0.0, 0.5) / k * np.sin(np.pi * k * (t + 1) / 2 + rng.uniform(0, 2 * np.pi))
        for k in range(1, bends + 1)
    )
    return np.stack([t, np.clip(y, -1.0, 1.0)], axis=1)


def bent(rng: np.random.Generator, shape: Shape, *, amount: float) -> Shape:
    """Return a shape seen in perspective and bent by a smooth map, as live things are.

    Args:
        rng: Source of all randomness.
        shape: What to bend, with all its parts.
        amount: Largest shift in units of half the shape's side, about 0 to 0.2.
    """
    frequency, phase = rng.uniform(1.0, 4.0, 4), rng.uniform(0.0, 2 * np.pi, 4)
    shift = rng.uniform(-amount, amount, 4)
    tilt_x, tilt_y = rng.uniform(-1.0, 1.0, 2) * min(2.0 * amount, 0.3)

    def bend(points: Points) -> Points:
        x, y = points[:, 0], points[:, 1]
        x_moved = x + shift[0] * np.sin(frequency[0] * x + phase[0])
        x_moved += shift[1] * np.sin(frequency[1] * y + phase[1])
        y_moved = y + shift[2] * np.sin(frequency[2] * x + phase[2])
        y_moved += shift[3] * np.sin(frequency[3] * y + phase[3])
        depth = np.maximum(1.0 + tilt_x * np.clip(x, -2, 2) + tilt_y * np.clip(y, -2, 2), 0.3)
        return np.stack([x_moved / depth, y_moved / depth], axis=1)

    def bend_all(figures: tuple[Figure, ...]) -> tuple[Figure, ...]:
        if not figures:
            return figures
        dense = [_densified(figure.points, closed=not figure.width) for figure in figures]
        moved = bend(np.concatenate(dense))
        ends = np.cumsum([len(points) for points in dense])[:-1]
        return tuple(
            Figure(points, figure.width)
            for points, figure in zip(np.split(moved, ends), figures, strict=True)
        )

    return Shape(
        bend_all(shape.body),
        bend_all(shape.holes),
        tuple(replace(layer, figures=bend_all(layer.figures)) for layer in shape.layers),
        shape.relief,
    )


def _densified(points: Points, *, closed: bool) -> Points:
    """Insert points on long edges of outlines that have few, so that they can bend."""
    if len(points) > 12:
        return points
    ends = np.roll(points, -1, axis=0) if closed else points[1:]
    starts = points if closed else points[:-1]
    t = np.linspace(0.0, 1.0, 6, endpoint=False)[None, :, None]
    dense = (starts[:, None] + t * (ends - starts)[:, None]).reshape(-1, 2)
    return dense if closed else np.concatenate([dense, points[-1:]])
