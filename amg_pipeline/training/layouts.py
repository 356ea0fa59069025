"""Arranges scenes: how many objects, how large, where, and in what order."""

from __future__ import annotations

import numpy as np

from amg_pipeline.training.painter import ScenePainter
from amg_pipeline.training.shapes import Shape, bent, is_upright
from amg_pipeline.training.things import Kind, random_shape


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _draw_shape(rng: np.random.Generator, kind: Kind) -> Shape:
    shape = random_shape(rng, kind)
    if rng.random() < 0.35:
        return shape
    return bent(rng, shape, amount=float(rng.uniform(0.02, 0.18)))


def _scatter(
    painter: ScenePainter, *, count: int, low: float, high: float, kind: Kind = "any"
) -> None:
    """Lay objects anywhere, sides from `low` to `high` of the scene's, the larger ones first."""
    rng, size = painter.rng, painter.size
    sides = np.array([_log_uniform(rng, low, high) for _ in range(count)])
    # Mostly large behind small, so that small things are seen, but not always.
    order = np.argsort(-sides * np.exp(rng.normal(0.0, 0.5, count)))
    for side in sides[order]:
        shape = _draw_shape(rng, kind)
        tilt = 0.15 if is_upright(shape) and rng.random() < 0.8 else np.pi
        painter.place(
            shape,
            None,
            centre=rng.uniform(-0.02, 1.02, 2) * size,
            half_px=float(side) * size / 2,
            aspect=_log_uniform(rng, 0.6, 1.7),
            angle=float(rng.normal(0.0, 1.0) * tilt),
            mirrored=bool(rng.random() < 0.5),
        )


def _repeat(painter: ScenePainter, *, kind: Kind = "any") -> None:
    """Lay a row, a grid or a heap of like objects; together they are one larger unit."""
    rng, size = painter.rng, painter.size
    shape, surface = _draw_shape(rng, kind), painter.surface()
    unit_id = painter.label_maps.new_unit()
    half = _log_uniform(rng, 0.025, 0.13) * size
    pitch = half * 2 * rng.uniform(0.8, 1.25)
    columns, rows = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    jitter = float(rng.choice([0.0, 0.05, 0.5]))
    aspect, turned = _log_uniform(rng, 0.7, 1.4), bool(rng.random() < 0.3)
    base = float(rng.normal(0.0, 0.3))
    turn = np.array([[np.cos(base), -np.sin(base)], [np.sin(base), np.cos(base)]])
    origin = rng.uniform(0.2, 0.8, 2) * size
    for row in range(rows):
        for column in range(columns):
            grid = np.array([column - (columns - 1) / 2, row - (rows - 1) / 2])
            at = turn @ ((grid + rng.normal(0.0, jitter, 2)) * pitch) + origin
            painter.place(
                shape,
                surface,
                centre=at,
                half_px=half * float(rng.uniform(0.9, 1.1)),
                aspect=aspect,
                angle=float(rng.uniform(0, 2 * np.pi)) if turned else base,
                unit_id=unit_id,
            )


def _mixed(painter: ScenePainter) -> None:
    painter.background()
    _scatter(painter, count=int(painter.rng.integers(4, 15)), low=0.08, high=0.8)


def _dominant(painter: ScenePainter) -> None:
    painter.background()
    rng, size = painter.rng, painter.size
    _scatter(painter, count=int(rng.integers(0, 4)), low=0.1, high=0.6)
    shape = _draw_shape(rng, "any")
    painter.place(
        shape,
        None,
        centre=rng.uniform(0.35, 0.65, 2) * size,
        half_px=float(rng.uniform(0.5, 0.95)) * size / 2,
        aspect=_log_uniform(rng, 0.7, 1.4),
        angle=float(rng.normal(0.0, 0.15 if is_upright(shape) else 1.5)),
        mirrored=bool(rng.random() < 0.5),
    )
    _scatter(painter, count=int(rng.integers(0, 4)), low=0.06, high=0.35)


def _crowded(painter: ScenePainter) -> None:
    """Cover nearly the whole ground, so that things border on things."""
    painter.background()
    _scatter(painter, count=int(painter.rng.integers(12, 24)), low=0.15, high=0.65)


def _many_small(painter: ScenePainter) -> None:
    painter.background()
    _scatter(painter, count=int(painter.rng.integers(10, 19)), low=0.05, high=0.3)


def _repeated(painter: ScenePainter) -> None:
    painter.background()
    _scatter(painter, count=int(painter.rng.integers(0, 4)), low=0.1, high=0.6)
    for _ in range(int(painter.rng.integers(1, 3))):
        _repeat(painter)
    _scatter(painter, count=int(painter.rng.integers(0, 4)), low=0.05, high=0.3)


def _outdoor(painter: ScenePainter) -> None:
    """Things that stand on the ground, the nearer the lower, the larger and the later."""
    painter.background(outdoor=True)
    rng, size = painter.rng, painter.size
    horizon, near = rng.uniform(0.3, 0.55), rng.uniform(0.4, 0.9)
    for foot in np.sort(horizon + (1.05 - horizon) * rng.uniform(0.03, 1.0, rng.integers(5, 18))):
        shape = _draw_shape(rng, "outdoor")
        half = near * (foot - horizon + 0.05) / (1.05 - horizon) * _log_uniform(rng, 0.5, 1.6)
        half_px = float(half * size / 2)
        painter.place(
            shape,
            None,
            centre=np.array([rng.uniform(0.0, 1.0) * size, foot * size - half_px]),
            half_px=half_px,
            aspect=_log_uniform(rng, 0.7, 1.3),
            angle=float(rng.normal(0.0, 0.03)),
            mirrored=bool(rng.random() < 0.5),
        )


_WEIGHTED_LAYOUTS = (
    (0.24, _mixed),
    (0.18, _dominant),
    (0.18, _crowded),
    (0.10, _many_small),
    (0.12, _repeated),
    (0.18, _outdoor),
)
_LAYOUTS = tuple(layout for _, layout in _WEIGHTED_LAYOUTS)
_LAYOUT_ENDS = np.cumsum([weight for weight, _ in _WEIGHTED_LAYOUTS])


def paint_layout(painter: ScenePainter) -> None:
    """Paint one scene of a kind drawn at random."""
    choice = int(np.searchsorted(_LAYOUT_ENDS, painter.rng.random(), side="right"))
    _LAYOUTS[choice](painter)
