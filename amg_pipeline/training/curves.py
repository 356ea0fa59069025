"""Draws the curves of a training as an SVG picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 150, 28, 34
_COLOURS = ("#1f6fb4", "#d1611a", "#2b8a3e", "#8e44ad", "#7f5539", "#0b7285")
#: Curves of one picture, by the ends of their names.
_PANELS = (("loss", ("loss",)), ("IoU", ("iou",)))

History = Sequence[Mapping[str, float]]


def draw_curves(history: History) -> str:
    """Draw a training's log: the losses in one panel, the IoUs in another.

    Args:
        history: What was measured in each epoch, by name; values that are no number are left out.

    Returns:
        SVG text.
    """
    panels = []
    for title, ends in _PANELS:
        names = sorted({name for row in history for name in row if name.endswith(ends)})
        curves = {name: _points(history, name) for name in names}
        if any(curves.values()):
            panels.append((title, {name: points for name, points in curves.items() if points}))
    parts = [
        f'<g transform="translate(0 {i * _HEIGHT})">{_panel(title, curves, len(history))}</g>'
        for i, (title, curves) in enumerate(panels)
    ]
    height = max(len(panels), 1) * _HEIGHT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _points(history: History, name: str) -> list[tuple[int, float]]:
    return [
        (epoch, float(row[name]))
        for epoch, row in enumerate(history, start=1)
        if name in row and math.isfinite(row[name])
    ]


def _panel(title: str, curves: Mapping[str, Sequence[tuple[int, float]]], epochs: int) -> str:
    values = [value for points in curves.values() for _, value in points]
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(epoch: int) -> float:
        return _LEFT + wide * (epoch - 1) / max(epochs - 1, 1)

    def y(value: float) -> float:
        return _TOP + tall * (high - value) / (high - low)

    parts = [f'<text x="{_LEFT}" y="16" font-size="13">{escape(title)}</text>']
    parts.extend(
        f'<line x1="{_LEFT}" x2="{_LEFT + wide}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
        f'stroke="#ddd"/><text x="{_LEFT - 6}" y="{y(value) + 4:.1f}" '
        f'text-anchor="end">{value:.4g}</text>'
        for value in (low, (low + high) / 2, high)
    )
    parts.extend(
        f'<text x="{x(epoch):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{epoch}</text>'
        for epoch in sorted({1, epochs})
    )
    parts.append(
        f'<text x="{_LEFT + wide / 2}" y="{_HEIGHT - 4}" text-anchor="middle">epoch</text>'
    )
    for i, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        dash = ' stroke-dasharray="5 3"' if name.startswith("val_") else ""
        line = " ".join(f"{x(epoch):.1f},{y(value):.1f}" for epoch, value in points)
        dot = f'<circle cx="{x(points[-1][0]):.1f}" cy="{y(points[-1][1]):.1f}" r="2.5"'
        parts.append(
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.6"{dash}/>'
            f'{dot} fill="{colour}"/>'
            f'<text x="{_LEFT + wide + 10}" y="{_TOP + 6 + 14 * i}" fill="{colour}">'
            f"{escape(name)} {points[-1][1]:.4g}</text>"
        )
    return "".join(parts)
