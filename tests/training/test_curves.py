from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from amg_pipeline.training.curves import draw_curves

SVG = "{http://www.w3.org/2000/svg}"


def test_each_measure_has_its_line_falling_as_it_does() -> None:
    history = [{"loss": 2.0, "val_top_iou": 0.2}, {"loss": 1.0, "val_top_iou": 0.6}]
    root = ET.fromstring(draw_curves(history))
    lines = [line.get("points", "").split() for line in root.iter(f"{SVG}polyline")]
    (loss, iou) = ([float(p.split(",")[1]) for p in line] for line in lines)
    assert loss[1] > loss[0]  # SVG's y grows downwards
    assert iou[1] < iou[0]
    assert {"loss 1", "val_top_iou 0.6"} <= {t.text for t in root.iter(f"{SVG}text")}


@pytest.mark.parametrize(
    "history", [[], [{}], [{"loss": 1.0}], [{"loss": float("nan")}], [{"loss": 1.0}] * 3]
)
def test_any_history_gives_a_picture(history: list[dict[str, float]]) -> None:
    ET.fromstring(draw_curves(history))
