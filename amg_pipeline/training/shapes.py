"""Draws outlines: silhouettes of things and of their parts, turned into soft masks.

Shapes live in the unit frame: x right, y down, about [-1, 1] both ways, upright. `rasterise`
carries them to scene pixels by an affine map and antialiases by supersampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points: TypeAlias = NDArray[np.float64]
Relief: TypeAlias = Literal["dome", "cylinder", "flat"]

_MAX_FIGURES = 255


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


@dataclass(frozen=True, slots=True)
class SpriteLayer:
    """Soft coverage, float32 `(h, w)`, and part ids (0 none), uint8 `(h, w)`, of a `PartLayer`."""

    alpha: NDArray[np.float32]
    ids: NDArray[np.uint8]
    tone: float | None


@dataclass(frozen=True, slots=True)
class Sprite:
    """A rasterised shape: the patch of the scene that it covers."""

    top: int
    left: int
    alpha: NDArray[np.float32]  # (h, w) coverage in [0, 1]
    layers: tuple[SpriteLayer, ...]
    to_unit: NDArray[np.float64]  # (2, 3): scene XY -> unit frame
    relief: Relief


def ellipse(x: float, y: float, radius_x: float, radius_y: float, *, num: int = 40) -> Points:
    """Return a closed ellipse as a polygon."""
    angle = np.linspace(0.0, 2 * np.pi, num, endpoint=False)
    return np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], axis=1)


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


# ---- simple silhouettes ----------------------------------------------------------------------


def _blob(rng: np.random.Generator) -> Shape:
    points = contour(
        rng, harmonics=int(rng.integers(3, 10)), roughness=float(rng.uniform(0.05, 0.45))
    )
    return Shape((Figure(points),))


def _ragged(rng: np.random.Generator) -> Shape:
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


# ---- things made of several figures ----------------------------------------------------------


def _crown(rng: np.random.Generator, *, x: float, y: float, radius: float) -> tuple[Figure, ...]:
    """A bushy union of discs."""
    num = int(rng.integers(8, 28))
    angle, reach = rng.uniform(0, 2 * np.pi, num), radius * np.sqrt(rng.uniform(0.0, 1.0, num))
    sizes = radius * rng.uniform(0.2, 0.5, num)
    return tuple(
        Figure(ellipse(x + r * np.cos(a), y + r * np.sin(a), s, s * 0.9, num=14))
        for a, r, s in zip(angle, reach, sizes, strict=True)
    )


def _tree(rng: np.random.Generator) -> Shape:
    lean, foot = rng.normal(0.0, 0.08), rng.uniform(0.04, 0.13)
    trunk = np.array(
        [(-foot, 1.0), (foot, 1.0), (lean + foot * 0.5, -0.2), (lean - foot * 0.5, -0.2)]
    )
    if rng.random() < 0.3:  # conifer
        tiers = int(rng.integers(1, 5))
        crown = tuple(
            Figure(
                np.array(
                    [
                        (lean, -1.0 + 0.4 * i),
                        (0.3 + 0.12 * i, -0.2 + 0.27 * i),
                        (-0.3 - 0.12 * i, -0.2 + 0.27 * i),
                    ]
                )
            )  # fmt: skip
            for i in range(tiers)
        )
    else:
        crown = _crown(rng, x=lean, y=-0.35, radius=float(rng.uniform(0.35, 0.6)))
    return Shape((Figure(trunk), *crown), layers=(PartLayer(crown, joined=True),))


def _bush(rng: np.random.Generator) -> Shape:
    return Shape(_crown(rng, x=0.0, y=0.0, radius=0.7))


def _plant(rng: np.random.Generator) -> Shape:
    """Leaves that fan out from a foot, in a pot or in the ground."""
    leaves = []
    for angle in np.linspace(-1.3, 1.3, int(rng.integers(4, 10))) + rng.normal(0.0, 0.12):
        length, fat = rng.uniform(0.6, 1.3), rng.uniform(0.06, 0.16)
        leaf = ellipse(0.0, -length / 2, fat, length / 2, num=16)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        leaves.append(Figure(leaf @ turn.T + np.array([0.0, 0.35])))
    if rng.random() < 0.5:
        return Shape(tuple(leaves))
    pot = Figure(np.array([(-0.4, 0.3), (0.4, 0.3), (0.28, 1.0), (-0.28, 1.0)]))
    return Shape((*leaves, pot), layers=(PartLayer((pot,)),))


def _flower(rng: np.random.Generator) -> Shape:
    num, fat = int(rng.integers(4, 11)), rng.uniform(0.18, 0.4)
    petals = []
    for angle in np.arange(num) * 2 * np.pi / num:
        x, y = 0.55 * np.cos(angle), 0.55 * np.sin(angle)
        petal = ellipse(0.0, 0.0, 0.45, fat, num=20)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        petals.append(Figure(petal @ turn.T + np.array([x, y])))
    heart = Figure(ellipse(0, 0, 0.3, 0.3, num=24))
    return Shape((*petals, heart), layers=(PartLayer((heart,)),))


def _turned(rng: np.random.Generator) -> Shape:
    """A vase, bottle, lamp or chess piece: a random profile turned about its axis."""
    y = np.linspace(-1.0, 1.0, 60)
    profile = np.full(60, 0.45)
    for k in range(1, int(rng.integers(3, 7))):
        profile += rng.normal(0.0, 0.25) / k * np.cos(np.pi * k * (y + 1) / 2 + rng.uniform(0, 6.3))
    profile = np.clip(profile, 0.1, 0.85)
    if rng.random() < 0.5:  # neck
        neck = int(rng.integers(8, 28))
        profile[:neck] = np.minimum(profile[:neck], rng.uniform(0.1, 0.25))
    outline = np.concatenate(
        [np.stack([profile, y], axis=1), np.stack([-profile, y], axis=1)[::-1]]
    )
    cuts = np.sort(rng.uniform(-0.9, 0.9, 2 * int(rng.integers(0, 3))))
    bands = tuple(Figure(box(-1, cuts[i], 1, cuts[i + 1])) for i in range(0, len(cuts), 2))
    return Shape(
        (Figure(outline),),
        layers=(PartLayer(bands),) if bands else (),
        relief="cylinder",
    )


def _crate(rng: np.random.Generator) -> Shape:
    """A box seen from a corner: front, side and top faces."""
    depth_x, depth_y = rng.uniform(0.2, 0.7), rng.uniform(0.1, 0.5)
    x1, y0 = 1.0 - depth_x, -1.0 + depth_y
    low = rng.uniform(0.2, 1.0)
    front = box(-1.0, y0, x1, low)
    top = np.array(
        [(-1.0, y0), (x1, y0), (x1 + depth_x, y0 - depth_y), (-1.0 + depth_x, y0 - depth_y)]
    )
    side = np.array(
        [(x1, y0), (x1, low), (x1 + depth_x, low - depth_y), (x1 + depth_x, y0 - depth_y)]
    )
    layers = (
        PartLayer((Figure(side),), tone=float(rng.uniform(0.45, 0.8))),
        PartLayer((Figure(top),), tone=float(rng.uniform(1.1, 1.4))),
    )
    return Shape((Figure(front), Figure(top), Figure(side)), layers=layers, relief="flat")


def _facade(rng: np.random.Generator) -> Shape:
    """A wall with a grid of windows, sometimes a door and a roof."""
    half = float(rng.uniform(0.35, 1.0))
    wall = Figure(box(-half, -0.8, half, 1.0))
    columns, rows = int(rng.integers(2, 8)), int(rng.integers(2, 8))
    pitch_x, pitch_y = 2 * half / columns, 1.5 / rows
    fill_x, fill_y = rng.uniform(0.35, 0.75), rng.uniform(0.4, 0.8)
    windows = [
        Figure(
            box(
                x - fill_x * pitch_x / 2,
                y - fill_y * pitch_y / 2,
                x + fill_x * pitch_x / 2,
                y + fill_y * pitch_y / 2,
            )
        )  # fmt: skip
        for x in -half + pitch_x * (np.arange(columns) + 0.5)
        for y in -0.75 + pitch_y * (np.arange(rows) + 0.5)
        if rng.random() < 0.95
    ]
    layers = [PartLayer(tuple(windows))] if windows else []
    body = [wall]
    if rng.random() < 0.5:
        x = rng.uniform(-0.6, 0.6) * half
        layers.append(PartLayer((Figure(box(x - 0.1, 0.72, x + 0.1, 1.0)),)))
    if rng.random() < 0.5:
        eave = half * rng.uniform(1.0, 1.15)
        peak = rng.uniform(0.0, 1.0) * half
        roof = Figure(np.array([(-eave, -0.79), (eave, -0.79), (peak, -1.0), (-peak, -1.0)]))
        body.append(roof)
        layers.append(PartLayer((roof,)))
    return Shape(tuple(body), layers=tuple(layers), relief="flat")


def _person(rng: np.random.Generator) -> Shape:
    """A standing figure: trunk, head, hair, limbs in a random pose."""
    stance, swing = rng.uniform(0.05, 0.3), rng.uniform(-0.1, 0.5, 2)
    torso = Figure(np.array([(-0.24, -0.58), (0.24, -0.58), (0.2, 0.12), (-0.2, 0.12)]))
    head = Figure(ellipse(rng.normal(0.0, 0.04), -0.8, 0.12, 0.16, num=24))
    hair = Figure(ellipse(float(head.points[:, 0].mean()), -0.89, 0.14, 0.1, num=24))
    legs = tuple(
        Figure(np.array([(side * 0.1, 0.05), (side * stance, 0.5), (side * stance, 0.95)]), 0.17)
        for side in (-1, 1)
    )
    arms = tuple(
        Figure(
            np.array([(side * 0.22, -0.5), (side * (0.25 + s / 2), -0.2), (side * (0.2 + s), 0.1)]),
            0.11,
        )
        for side, s in zip((-1, 1), swing, strict=True)
    )
    layers = (PartLayer(legs, joined=True), PartLayer((head,)), PartLayer((hair,)))
    return Shape((torso, head, hair, *legs, *arms), layers=layers)


def _animal(rng: np.random.Generator) -> Shape:
    """A four-legged body with head, ears and tail, in one coat."""
    long, fat, leg = rng.uniform(0.5, 0.7), rng.uniform(0.22, 0.36), rng.uniform(0.08, 0.14)
    trunk = Figure(ellipse(0.0, 0.0, long, fat, num=40))
    hx, hy = -long - 0.05, rng.uniform(-0.5, 0.0)
    head = Figure(ellipse(hx, hy, rng.uniform(0.16, 0.28), 0.17, num=28))
    neck = Figure(np.array([(hx, hy), (-long * 0.6, -0.05)]), float(rng.uniform(0.15, 0.3)))
    ears = tuple(
        Figure(
            np.array([(hx + d, hy - 0.08), (hx + d + 0.12, hy - 0.08), (hx + d + 0.05, hy - 0.32)])
        )
        for d in (-0.1, 0.05)
    )
    legs = tuple(
        Figure(np.array([(x, fat * 0.5), (x + rng.normal(0.0, 0.08), fat + 0.45)]), leg)
        for x in (-0.45, -0.28, 0.3, 0.46)
    )
    tail = Figure(np.array([(long * 0.9, -0.05), (long + 0.25, rng.uniform(-0.4, 0.3))]), leg * 0.7)
    body = (trunk, neck, head, *ears, *legs, tail)
    pattern = tuple(
        Figure(
            contour(rng, harmonics=4, roughness=0.25, num=32) * rng.uniform(0.1, 0.25)
            + np.array([rng.uniform(-0.4, 0.4), rng.uniform(-0.15, 0.15)])
        )  # fmt: skip
        for _ in range(int(rng.integers(0, 4)))
    )
    return Shape(body, layers=(PartLayer(pattern),) if pattern else ())


def _vehicle(rng: np.random.Generator) -> Shape:
    hood, roof = rng.uniform(-0.75, -0.4), rng.uniform(0.3, 0.9)
    base = Figure(np.array([(-1, 0.0), (-0.95, -0.12), (0.98, -0.15), (1, 0.3), (-1, 0.3)]))
    cabin = np.array([(hood, -0.1), (hood + 0.25, -0.5), (roof - 0.2, -0.5), (roof, -0.1)])
    panes = (
        np.array([(hood + 0.1, -0.14), (hood + 0.28, -0.44), (-0.02, -0.44), (-0.02, -0.14)]),
        np.array([(0.04, -0.14), (0.04, -0.44), (roof - 0.24, -0.44), (roof - 0.1, -0.14)]),
    )
    wheels = tuple(Figure(ellipse(x, 0.3, 0.2, 0.2, num=28)) for x in (-0.58, 0.6))
    hubs = tuple(Figure(ellipse(x, 0.3, 0.1, 0.1, num=20)) for x in (-0.58, 0.6))
    layers = (
        PartLayer(tuple(Figure(p) for p in panes)),
        PartLayer(wheels, tone=0.25),
        PartLayer(hubs),
    )
    return Shape((base, Figure(cabin), *wheels), layers=layers, relief="flat")


def _furniture(rng: np.random.Generator) -> Shape:
    """A table or chair: a slab on legs; the background is seen between the legs."""
    top, thick = rng.uniform(-0.4, 0.1), rng.uniform(0.08, 0.25)
    slab = Figure(box(-0.9, top, 0.9, top + thick))
    leg = float(rng.uniform(0.06, 0.16))
    legs = tuple(
        Figure(np.array([(x, top + thick / 2), (x * rng.uniform(0.95, 1.1), 1.0)]), leg)
        for x in (-0.8, 0.8, -0.5, 0.55)[: 2 * int(rng.integers(1, 3))]
    )
    body = [slab, *legs]
    layers: list[PartLayer] = [PartLayer(legs, tone=float(rng.uniform(0.5, 0.85)), joined=True)]
    if rng.random() < 0.5:
        back = Figure(box(0.65, -1.0, 0.9, top + thick / 2))
        body.append(back)
        layers.append(PartLayer((back,), tone=float(rng.uniform(0.7, 1.2))))
    return Shape(tuple(body), layers=tuple(layers), relief="flat")


def _lattice(rng: np.random.Generator) -> Shape:
    """A fence, gate or ladder: bars with the background between them."""
    num, bar = int(rng.integers(3, 8)), float(rng.uniform(0.05, 0.14))
    uprights = tuple(
        Figure(np.array([(x, -0.7), (x, 0.7)]), bar) for x in np.linspace(-0.9, 0.9, num)
    )
    rails = tuple(Figure(np.array([(-1.0, y), (1.0, y)]), bar) for y in (-0.4, 0.4))
    return Shape((*uprights, *rails), relief="flat")


def _fish(rng: np.random.Generator) -> Shape:
    body = Figure(ellipse(-0.2, 0.0, 0.75, float(rng.uniform(0.25, 0.5)), num=48))
    tail = Figure(np.array([(0.4, 0.0), (1.0, -0.4), (0.85, 0.0), (1.0, 0.4)]))
    fin = Figure(np.array([(-0.3, -0.2), (0.2, -0.2), (0.1, -0.65)]))
    eye = Figure(ellipse(-0.7, -0.08, 0.07, 0.07, num=16))
    return Shape((body, tail, fin), layers=(PartLayer((tail, fin)), PartLayer((eye,), tone=0.2)))


_Maker: TypeAlias = Callable[[np.random.Generator], Shape]

_SIMPLE: tuple[_Maker, ...] = (
    _blob, _blob, _blob, _ragged, _convex, _concave, _regular, _oval, _oval, _rounded_box,
    _rounded_box, _slab, _slab, _star, _crescent, _ring, _capsule, _strand, _glyph, _leaf,
)  # fmt: skip
_COMPOSED: tuple[_Maker, ...] = (
    _tree, _tree, _bush, _plant, _flower, _turned, _turned, _turned, _crate, _crate, _facade,
    _facade, _person, _person, _person, _animal, _animal, _animal, _vehicle, _vehicle,
    _furniture, _lattice, _fish,
)  # fmt: skip
_OUTDOOR: tuple[_Maker, ...] = (
    _tree, _tree, _tree, _bush, _facade, _facade, _facade, _person, _person, _animal, _vehicle,
    _vehicle, _lattice, _crate, _blob, _ragged,
)  # fmt: skip

Kind: TypeAlias = Literal["any", "simple", "composed", "outdoor"]


def random_shape(rng: np.random.Generator, kind: Kind = "any") -> Shape:
    """Draw a shape of a kind; simple ones get painted parts about half the time."""
    if kind == "any":
        kind = "simple" if rng.random() < 0.55 else "composed"
    makers = {"simple": _SIMPLE, "composed": _COMPOSED, "outdoor": _OUTDOOR}[kind]
    shape = makers[int(rng.integers(len(makers)))](rng)
    if not shape.layers and rng.random() < 0.5:
        return _with_parts(rng, shape)
    return shape


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


def is_upright(shape: Shape) -> bool:
    """Tell whether the shape has a natural bottom (it is made of several figures)."""
    return len(shape.body) > 1


def _with_parts(rng: np.random.Generator, shape: Shape) -> Shape:
    """Paint bands, a cap, a patch, an inner area or spots on a shape."""
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


# ---- rasterising -----------------------------------------------------------------------------


def rasterise(
    shape: Shape,
    matrix: NDArray[np.float64],
    centre: NDArray[np.float64],
    *,
    size: int,
    margin_px: int = 1,
) -> Sprite | None:
    """Draw a shape into the patch of a scene that it covers.

    Args:
        shape: What to draw, unit frame.
        matrix: `(2, 2)` map from the unit frame to scene pixels.
        centre: `(2,)` scene XY of the unit frame's origin, pixel corners at integers.
        size: Side of the square scene in pixels.
        margin_px: Empty pixels to keep around the shape.

    Returns:
        The sprite, clipped to the scene; None when nothing of it is inside.
    """
    stretch = float(np.sqrt(abs(np.linalg.det(matrix))))
    outline = np.concatenate([figure.points for figure in shape.body]) @ matrix.T + centre
    margin = margin_px + max(figure.width for figure in shape.body) * stretch
    low = np.clip(np.floor(outline.min(axis=0) - margin), 0, size).astype(int)
    high = np.clip(np.ceil(outline.max(axis=0) + margin), 0, size).astype(int)
    width, height = (high - low).tolist()
    if width < 2 or height < 2:
        return None
    # Large patches have room for fewer samples a pixel; their edges are as smooth to the eye.
    samples = 4 if max(width, height) <= 96 else 3 if max(width, height) <= 200 else 2
    draw_matrix, origin = matrix.T * samples, (centre - low) * samples

    def draw(figures: tuple[Figure, ...], fills: list[int], image: Image.Image) -> None:
        pen = ImageDraw.Draw(image)
        for figure, fill in zip(figures, fills, strict=True):
            points = figure.points @ draw_matrix + origin
            if figure.width:
                _draw_stroke(pen, points, figure.width * stretch * samples, fill)
            else:
                pen.polygon(points.ravel().tolist(), fill=fill)

    canvas = Image.new("L", (width * samples, height * samples))
    draw(shape.body, [255] * len(shape.body), canvas)
    draw(shape.holes, [0] * len(shape.holes), canvas)
    layers = []
    for layer in shape.layers:
        figures = layer.figures[:_MAX_FIGURES]
        ids = [1] * len(figures) if layer.joined else list(range(1, len(figures) + 1))
        image = Image.new("L", canvas.size)
        draw(figures, ids, image)
        drawn = np.asarray(image)
        cover = Image.fromarray(np.where(drawn > 0, np.uint8(255), np.uint8(0)))
        layers.append(
            SpriteLayer(
                alpha=_coverage(cover, samples),
                ids=drawn[samples // 2 :: samples, samples // 2 :: samples],
                tone=layer.tone,
            )
        )
    inverse = np.linalg.inv(matrix)
    to_unit = np.concatenate([inverse, -(inverse @ centre)[:, None]], axis=1)
    alpha = _coverage(canvas, samples)
    return Sprite(int(low[1]), int(low[0]), alpha, tuple(layers), to_unit, shape.relief)


def _draw_stroke(pen: ImageDraw.ImageDraw, points: Points, width: float, fill: int) -> None:
    """Draw a line with round ends."""
    pen.line(points.ravel().tolist(), fill=fill, width=max(1, round(width)), joint="curve")
    radius = width / 2
    if radius >= 1:
        for x, y in (points[0], points[-1]):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _coverage(image: Image.Image, samples: int) -> NDArray[np.float32]:
    return np.asarray(image.reduce(samples), np.float32) * np.float32(1 / 255)
