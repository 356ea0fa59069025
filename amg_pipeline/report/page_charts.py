"""The distributions of a run as charts of a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from amg_pipeline.report.charts import Axis, draw_histogram, nice_ticks, short_number
from amg_pipeline.report.distributions import AREAS, SCORES, Bar, Distribution
from amg_pipeline.report.facts import RunFacts
from amg_pipeline.selection import Selection
from amg_pipeline.storage.stored_plan import StoredPlan


def charts(facts: RunFacts, plan: StoredPlan, selection: Selection) -> str:
    """Draw the distributions."""
    amg = plan.config["amg"]
    iou_limit = max(selection.min_iou, float(amg.get("pred_iou_thresh") or 0))
    stability_limit = max(selection.min_stability, float(amg.get("stability_score_thresh") or 0))
    return (
        '<div class="charts">'
        + _score_chart("Predicted IoU", facts.predicted_iou, iou_limit)
        + _score_chart("Stability score", facts.stability, stability_limit)
        + _area_chart(facts.area)
        + _number_chart(facts.masks_per_image)
        + "</div>"
    )


def _score_chart(title: str, found: Distribution, limit: float) -> str:
    bars = found.bars()
    ticks = nice_ticks(bars[0].start, bars[-1].end) if bars else []
    axis = Axis(
        ticks=[(tick, f"{tick:g}") for tick in ticks],
        describe=lambda bar: f"{bar.start:.3g} to {bar.end:.3g}",
        limit=limit or None,
        limit_label=f"threshold {limit:g}",
    )
    return _figure(title, found, bars, axis, unit="masks", digits=".3f")


def _area_chart(found: Distribution) -> str:
    bars = found.bars()
    ticks: list[tuple[float, str]] = []
    if bars:
        span = bars[-1].end - bars[0].start
        steps = (1,) if span > math.log2(1000) else (1, 2, 5)
        values = [step * 10**power for power in range(13) for step in steps]
        ticks = [(math.log2(value), short_number(value)) for value in values]
    axis = Axis(
        ticks=ticks,
        describe=lambda bar: f"{2**bar.start:,.0f} to {2**bar.end:,.0f} pixels",
    )
    return _figure("Area in pixels", found, bars, axis, unit="masks", digits=",.0f")


def _number_chart(found: Distribution) -> str:
    bars = found.bars()
    ticks = nice_ticks(bars[0].start, bars[-1].end) if bars else []
    is_single = bool(bars) and bars[0].end - bars[0].start == 1
    axis = Axis(
        # A number's bar lies to the right of it.
        ticks=[(tick + 0.5 * is_single, f"{tick:,.0f}") for tick in ticks if tick == round(tick)],
        describe=lambda bar: (
            f"{bar.start:,.0f} masks"
            if is_single
            else f"{bar.start:,.0f} to {bar.end - 1:,.0f} masks"
        ),
    )
    return _figure("Masks per image", found, bars, axis, unit="images", digits=",.0f")


def _figure(
    title: str,
    found: Distribution,
    bars: Sequence[Bar],
    axis: Axis,
    *,
    unit: str,
    digits: str,
) -> str:
    quantiles = [found.quantile(part) for part in (0.05, 0.5, 0.95)]
    summary = ""
    if None not in quantiles:
        low, middle, high = (_rounded(value or 0.0, found, digits) for value in quantiles)
        summary = f"median {middle} · 90 % in {low}–{high}"
    if found.num_nan:
        summary += f" · {found.num_nan:,} without one"
    drawn = draw_histogram(bars, axis, label=f"{title}: {summary}", unit=unit)
    return (
        f'<figure class="plot"><figcaption><strong>{title}</strong>'
        f"<span>{escape(summary)}</span></figcaption>{drawn}</figure>"
    )


def _rounded(value: float, found: Distribution, digits: str) -> str:
    if found.scale is AREAS and value > 100:
        # Known to two per cent, no better.
        size = 10 ** (math.floor(math.log10(value)) - 1)
        value = round(value / size) * size
    if found.scale is SCORES:
        return f"{value:{digits}}".rstrip("0").rstrip(".")
    return f"{value:{digits}}"
