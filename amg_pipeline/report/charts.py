"""Histograms as inline SVG: no library, colours from the page, readable without a mouse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from amg_pipeline.report.distributions import Bar

WIDTH, HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 22, 28
_PLOT_WIDTH, _PLOT_HEIGHT = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
_BASE = HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The horizontal axis of a chart.

    Attributes:
        ticks: Positions with their labels.
        describe: Names what a bar counts: `0.90 to 0.92`.
        limit: Position of a setting that is drawn as a line; None for none.
        limit_label: What the line says.
    """

    ticks: Sequence[tuple[float, str]]
    describe: Callable[[Bar], str]
    limit: float | None = None
    limit_label: str = ""


def draw_histogram(bars: Sequence[Bar], axis: Axis, *, label: str, unit: str) -> str:
    """Draw bars over an axis.

    Args:
        bars: Neighbours, in order.
        axis: What is below them.
        label: What the chart shows, for those who do not see it.
        unit: What is counted, in the plural.

    Returns:
        An `<svg>` element; a paragraph where there are no bars.
    """
    if not bars:
        return '<p class="none">No values yet.</p>'
    low, high = bars[0].start, bars[-1].end

    def to_x(position: float) -> float:
        return _LEFT + (position - low) / (high - low) * _PLOT_WIDTH

    top, steps = _nice_top(max(bar.count for bar in bars))
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">']
    parts.append(f"<title>{escape(label)}</title>")
    for count in steps:
        y = _BASE - count / top * _PLOT_HEIGHT
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">'
            f"{short_number(count)}</text>"
        )
    parts.extend(_slot(bar, axis, to_x, top, unit) for bar in bars)
    for position, text in axis.ticks:
        if low <= position <= high:
            x = to_x(position)
            parts.append(
                f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_BASE}" y2="{_BASE + 4}"/>'
                f'<text class="tick" x="{x:.1f}" y="{_BASE + 18}" text-anchor="middle">'
                f"{escape(text)}</text>"
            )
    parts.append(
        f'<line class="axis" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{_BASE}" y2="{_BASE}"/>'
    )
    if axis.limit is not None and low <= axis.limit <= high:
        parts.append(_limit(to_x(axis.limit), axis.limit_label))
    return "".join(parts) + "</svg>"


def _slot(bar: Bar, axis: Axis, to_x: Callable[[float], float], top: float, unit: str) -> str:
    """Draw a bar, with a title over the whole height so that low bars are easily hit."""
    left, right = to_x(bar.start), to_x(bar.end)
    height = bar.count / top * _PLOT_HEIGHT
    if bar.count:
        # Too few to be seen among many are still there.
        height = max(height, 1.0)
    gap = min(1.0, (right - left) * 0.1)
    return (
        f'<g class="slot"><title>{escape(axis.describe(bar))}: {bar.count:,} {escape(unit)}</title>'
        f'<rect class="hit" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" '
        f'height="{_PLOT_HEIGHT}"/>'
        f'<rect class="bar" x="{left + gap:.2f}" y="{_BASE - height:.1f}" '
        f'width="{right - left - 2 * gap:.2f}" height="{height:.1f}"/></g>'
    )


def _limit(x: float, label: str) -> str:
    is_right = x > WIDTH - _RIGHT - 110
    anchor, shift = ("end", -5) if is_right else ("start", 5)
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 12}" y2="{_BASE}"/>'
        f'<text class="limit-label" x="{x + shift:.1f}" y="{_TOP - 6}" text-anchor="{anchor}">'
        f"{escape(label)}</text>"
    )


def nice_step(span: float, *, most: int) -> float:
    """Find the smallest of 1, 2 and 5 times a power of ten with at most `most` steps in `span`."""
    rough = span / most
    power = 10.0 ** math.floor(math.log10(rough))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= rough * (1 - 1e-9))


def nice_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Choose round numbers between two others."""
    step = nice_step(high - low, most=most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def _nice_top(highest: int) -> tuple[float, list[int]]:
    """Choose where the vertical axis ends, and its round numbers, all of them whole."""
    step = max(1, round(nice_step(highest, most=4)))
    steps = list(range(0, highest + step, step))
    return steps[-1] or 1, steps


def short_number(number: float) -> str:
    """Write a number in few signs: `950`, `1.2k`, `10M`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"
