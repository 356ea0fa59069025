"""Draws simple things at random: one outline, sometimes with parts painted on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from amg_pipeline.training.shapes import (
    Figure,
    PartLayer,
    Shape,
    box,
    contour,
    curve,
    ellipse,
)

Maker: TypeAlias = Callable[[np.random.Generator], Shape]


def with_parts(rng: np.random.Generator, shape: Shape) -> Shape:
    """Return a shape with bands, a cap, a patch, an inner area or spots painted on it."""
    turn = rng.uniform(0.0, np.pi) if rng.random() < 0.5 else 0.0
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    tone = None if rng.random() < 0.7 else float(rng.choice([0.55, 0.75, 1.3]))
    kind = int(rng.integers(5))
    if kind == 0:  # bands
        num = int(rng.integers(1, 5))
        edges = np.linspace(-1.2, 1.2, 2 * num + 2)[1:-1] + rng.uniform(-0.1, 0.1)
        figures = tuple(
            Figure(box(-2, edges[2 * i], 2, edges[2 * i + 1]) @ rotation.T) for i in range(num)
        )
    elif kind == 1:  # cap
        figures = (Figure(box(-2, -2, 2, rng.uniform(-0.5, 0.3)) @ rotation.T),)
    elif kind == 2:  # patch
        patch = contour(rng, harmonics=5, roughness=0.25, num=48) * rng.uniform(0.2, 0.5)
        figures = (Figure(patch + rng.uniform(-0.3, 0.3, 2)),)
    elif kind == 3 and not shape.body[0].width:  # inner area within a rim
        figures = (Figure(shape.body[0].points * rng.uniform(0.5, 0.85)),)
    else:  # spots
        num = int(rng.integers(2, 8))
        figures = tuple(
            Figure(ellipse(x, y, r, r, num=20))
            for x, y, r in zip(
                rng.uniform(-0.6, 0.6, num),
                rng.uniform(-0.6, 0.6, num),
                rng.uniform(0.08, 0.22, num),
                strict=True,
            )
        )
    return replace(shape, layers=(PartLayer(figures, tone=tone),))


def blob(rng: np.random.Generator) -> Shape:
    """A smooth closed contour."""
    points = contour(
        rng, harmonics=int(rng.integers(3, 10)), roughness=float(rng.uniform(0.05, 0.45))
    )
    return Shape((Figure(points),))


def ragged(rng: np.random.Generator) -> Shape:
    """A contour with fine teeth, as of torn paper or a bush."""
    points = contour(rng, harmonics=40, roughness=float(rng.uniform(0.15, 0.4)), num=180)
    return Shape((Figure(points),))


def _convex(rng: np.random.Generator) -> Shape:
    angle = np.sort(rng.uniform(0.0, 2 * np.pi, int(rng.integers(4, 9))))
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return Shape((Figure(points),), relief="flat")


def _concave(rng: np.random.Generator) -> Shape:
    num = int(rng.integers(5, 12))
    angle = (np.arange(num) + rng.uniform(0.0, 0.8, num)) * 2 * np.pi / num
    radius = rng.uniform(0.35, 1.0, num)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return Shape((Figure(points),), relief="flat")


def _regular(rng: np.random.Generator) -> Shape:
    num = int(rng.integers(3, 9))
    angle = np.arange(num) * 2 * np.pi / num - np.pi / 2
    return Shape((Figure(np.stack([np.cos(angle), np.sin(angle)], axis=1)),), relief="flat")


def _oval(rng: np.random.Generator) -> Shape:
    return Shape((Figure(ellipse(0, 0, 1, float(rng.uniform(0.5, 1.0)), num=64)),))


def _rounded_box(rng: np.random.Generator) -> Shape:
    """A superellipse: from an oval to a nearly sharp rectangle."""
    angle = np.linspace(0.0, 2 * np.pi, 80, endpoint=False)
    power = 2.0 / rng.uniform(2.5, 14.0)
    x = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    y = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power * rng.uniform(0.3, 1.0)
    return Shape((Figure(np.stack([x, y], axis=1)),), relief="flat")


def _slab(rng: np.random.Generator) -> Shape:
    ratio = float(rng.uniform(0.15, 1.0))
    skew = rng.uniform(-0.25, 0.25)
    points = box(-1, -ratio, 1, ratio) + np.array([[skew, 0], [skew, 0], [-skew, 0], [-skew, 0]])
    return Shape((Figure(points),), relief="flat")


def _star(rng: np.random.Generator) -> Shape:
    num = int(rng.integers(4, 10))
    angle = np.arange(2 * num) * np.pi / num
    radius = np.where(np.arange(2 * num) % 2, rng.uniform(0.3, 0.75), 1.0)
    return Shape((Figure(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)),))


def _crescent(rng: np.random.Generator) -> Shape:
    shift = rng.uniform(0.3, 0.8)
    return Shape(
        (Figure(ellipse(0, 0, 1, 1, num=64)),),
        holes=(Figure(ellipse(shift, 0, rng.uniform(0.7, 1.0), rng.uniform(0.7, 1.0), num=64)),),
    )


def _ring(rng: np.random.Generator) -> Shape:
    outer = contour(rng, harmonics=4, roughness=float(rng.choice([0.0, 0.1, 0.2])))
    inner = outer * rng.uniform(0.35, 0.85) + rng.normal(0.0, 0.03, 2)
    return Shape((Figure(outer),), holes=(Figure(inner),))


def _capsule(rng: np.random.Generator) -> Shape:
    half = float(rng.uniform(0.1, 0.35))
    line = np.array([(-1 + half, 0.0), (1 - half, 0.0)])
    return Shape((Figure(line, 2 * half),), relief="cylinder")


def _strand(rng: np.random.Generator) -> Shape:
    """A thin curved stroke: cable, branch, snake, handle."""
    line = curve(rng, bends=int(rng.integers(1, 5)))
    return Shape((Figure(line, float(np.exp(rng.uniform(np.log(0.04), np.log(0.3))))),))


def _glyph(rng: np.random.Generator) -> Shape:
    """A letter-like union of bars and arcs between nodes of a small grid."""
    width = float(rng.uniform(0.15, 0.4))
    nodes = np.array([(x, y) for x in (-0.6, 0.0, 0.6) for y in (-0.8, 0.0, 0.8)])
    figures = []
    at = int(rng.integers(9))
    for _ in range(int(rng.integers(2, 5))):
        to = int(rng.choice([n for n in range(9) if n != at]))
        figures.append(Figure(nodes[[at, to]], width))
        at = to
    if rng.random() < 0.4:
        start = rng.uniform(0.0, 2 * np.pi)
        sweep = np.linspace(start, start + rng.uniform(2.5, 6.0), 30)
        arc = np.stack([0.6 * np.cos(sweep), 0.6 * np.sin(sweep)], axis=1)
        figures.append(Figure(arc, width))
    return Shape(tuple(figures), relief="flat")


def _leaf(rng: np.random.Generator) -> Shape:
    t = np.linspace(0.0, np.pi, 24)
    bend, fat = rng.normal(0.0, 0.2), rng.uniform(0.15, 0.6)
    spine = bend * np.sin(t)
    upper = np.stack([-np.cos(t), spine + fat * np.sin(t) ** rng.uniform(0.7, 1.5)], axis=1)
    lower = np.stack([-np.cos(t), spine - fat * np.sin(t)], axis=1)[::-1]
    outline = np.concatenate([upper, lower])
    layers: tuple[PartLayer, ...] = ()
    if rng.random() < 0.4:
        halves = np.concatenate([upper, np.stack([-np.cos(t), spine], axis=1)[::-1]])
        layers = (PartLayer((Figure(halves),), tone=float(rng.uniform(0.7, 0.9))),)
    return Shape((Figure(outline),), layers=layers)


SIMPLE_MAKERS: tuple[Maker, ...] = (
    blob, blob, blob, ragged, _convex, _concave, _regular, _oval, _oval, _rounded_box,
    _rounded_box, _slab, _slab, _star, _crescent, _ring, _capsule, _strand, _glyph, _leaf,
)  # fmt: skip
