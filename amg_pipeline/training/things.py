"""Draws things made of several figures: trees, houses, people, animals, vehicles, vessels."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from amg_pipeline.training.shapes import Figure, PartLayer, Shape, box, contour, ellipse
from amg_pipeline.training.silhouettes import SIMPLE_MAKERS, Maker, blob, ragged, with_parts


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
            )
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
        )
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
        )
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


_COMPOSED: tuple[Maker, ...] = (
    _tree, _tree, _bush, _plant, _flower, _turned, _turned, _turned, _crate, _crate, _facade,
    _facade, _person, _person, _person, _animal, _animal, _animal, _vehicle, _vehicle,
    _furniture, _lattice, _fish,
)  # fmt: skip
_OUTDOOR: tuple[Maker, ...] = (
    _tree, _tree, _tree, _bush, _facade, _facade, _facade, _person, _person, _animal, _vehicle,
    _vehicle, _lattice, _crate, blob, ragged,
)  # fmt: skip

Kind: TypeAlias = Literal["any", "simple", "composed", "outdoor"]


def random_shape(rng: np.random.Generator, kind: Kind = "any") -> Shape:
    """Draw a shape of a kind; simple ones get painted parts about half the time."""
    if kind == "any":
        kind = "simple" if rng.random() < 0.55 else "composed"
    makers = {"simple": SIMPLE_MAKERS, "composed": _COMPOSED, "outdoor": _OUTDOOR}[kind]
    shape = makers[int(rng.integers(len(makers)))](rng)
    if not shape.layers and rng.random() < 0.5:
        return with_parts(rng, shape)
    return shape
