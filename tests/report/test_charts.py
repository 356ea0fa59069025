"""Histograms as SVG."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from amg_pipeline.report.charts import WIDTH, Axis, draw_histogram, nice_ticks, short_number
from amg_pipeline.report.distributions import Bar

AXIS = Axis(ticks=[(0.0, "0"), (0.5, "half"), (9.0, "off")], describe=lambda bar: f"{bar.start:g}")
BARS = (Bar(0.0, 0.5, 7), Bar(0.5, 1.0, 0), Bar(1.0, 1.5, 1_000_000))


def parse(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_bars_stand_on_the_axis_and_keep_their_ratio() -> None:
    chart = parse(draw_histogram(BARS, AXIS, label="Scores", unit="masks"))

    rects = [rect for rect in chart.iter("rect") if rect.get("class") == "bar"]
    bottoms = {round(float(r.get("y")) + float(r.get("height")), 3) for r in rects}
    assert len(bottoms) == 1
    heights = [float(rect.get("height")) for rect in rects]
    assert heights[1] == 0
    assert 0 < heights[0] < heights[2] / 50  # few among many are still seen
    assert all(0 <= float(r.get("x")) <= WIDTH for r in rects)


def test_chart_says_what_it_shows_in_words() -> None:
    chart = parse(draw_histogram(BARS, AXIS, label='A "chart" <b>', unit="masks"))

    titles = [title.text for title in chart.iter("title")]
    assert titles == ['A "chart" <b>', "0: 7 masks", "0.5: 0 masks", "1: 1,000,000 masks"]
    assert chart.get("role") == "img"


def test_ticks_beyond_the_axis_are_left_out() -> None:
    text = draw_histogram(BARS, AXIS, label="Scores", unit="masks")

    assert ">half<" in text
    assert ">off<" not in text


@pytest.mark.parametrize(("limit", "is_drawn"), [(0.5, True), (3.0, False), (None, False)])
def test_limit_is_drawn_where_it_is_on_the_axis(limit: float | None, is_drawn: bool) -> None:
    axis = Axis(ticks=[], describe=str, limit=limit, limit_label="threshold")

    assert ("threshold" in draw_histogram(BARS, axis, label="", unit="")) == is_drawn


def test_no_bars_are_a_sentence() -> None:
    assert draw_histogram((), AXIS, label="Scores", unit="masks").startswith("<p")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.88, 1.0, [0.88, 0.9, 0.92, 0.94, 0.96, 0.98, 1.0]),
        (0, 100, [0, 20, 40, 60, 80, 100]),
        (3, 4, [3, 3.2, 3.4, 3.6, 3.8, 4]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == expected


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (950, "950"), (1200, "1.2k"), (10_000_000, "10M")]
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert short_number(number) == text
