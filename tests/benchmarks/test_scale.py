"""The benchmark of scale itself: its parts run, and what it computes from them is right."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scale
from benchmarks.scale_parts import measure_plan, measure_resume, steady_rate


def test_planning_and_resuming_are_measured(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    (tmp_path / "resume").mkdir()
    assert measure_plan(300, tmp_path / "plan")["images"] == 300
    resumed = measure_resume(6, tmp_path / "resume")
    assert resumed["images"] == 600
    assert resumed["seconds_until_first_shard"] < sum(resumed["seconds"].values())


@pytest.mark.parametrize("gap", [0.0, 0.05])
def test_a_rate_is_that_of_the_window_in_which_all_work(tmp_path: Path, gap: float) -> None:
    for number in range(4):
        starts = number + np.arange(400) * (0.05 + gap)
        np.stack([starts, starts + 0.05], axis=1).tofile(tmp_path / f"{number}.stamps")
    rate = steady_rate(tmp_path, warm_up=1.0)
    assert rate["images_per_second"] == pytest.approx(4 / (0.05 + gap), rel=0.01)
    assert rate["mean_seconds_in_model"] == pytest.approx(0.05)
    assert rate["share_of_time_in_model"] == pytest.approx(0.05 / (0.05 + gap), rel=0.01)


def test_growth_is_the_exponent_of_the_size() -> None:
    rows = [{"images": 10, "seconds": 1.0}, {"images": 1000, "seconds": 100.0}]
    assert scale._growth(rows) == {"seconds": pytest.approx(1.0)}


def test_numbers_are_medians_with_each_run_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = iter([{"seconds": 3.0, "n": 1}, {"seconds": 1.0, "n": 1}, {"seconds": 2.0, "n": 1}])
    monkeypatch.setattr(scale, "_run", lambda part, size: next(runs))
    assert scale._measure("plan", 1, 3) == {
        "seconds": 2.0,
        "n": 1,
        "seconds_of_each_run": [1.0, 2.0, 3.0],
    }


def test_the_stored_results_are_complete_and_keep_the_rate() -> None:
    results = json.loads(scale.RESULTS.read_text())
    assert set(results) == set(scale.SIZES)
    for part, sizes in scale.SIZES.items():
        key = "shards" if part == "resume" else "images"
        assert [row[key] for row in results[part]["rows"]] == list(sizes)
    (workers,) = results["workers"]["rows"]
    assert workers["share_of_ideal"] >= scale.LEAST_SHARE_OF_IDEAL
