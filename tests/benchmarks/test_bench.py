"""The harness of `make bench`: what is logged is kept, what is computed of it is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco

from benchmarks.bench_log import Log
from benchmarks.bench_parts import agreement
from benchmarks.bench_report import put_between, summarise, write_docs
from benchmarks.contenders.process import ContenderError, ContenderProcess
from benchmarks.contenders.protocol import Task, grid_points


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    Log(path).measure("first", lambda: {"value": 1})
    with path.open("a") as file:
        file.write('{"key": "second", "val')
    log = Log(path)
    assert log.measure("first", lambda: pytest.fail("measured again"))["value"] == 1
    assert not log.has("second")


def _square(side: int, left: int = 0) -> dict[str, Any]:
    mask = np.zeros((20, 20), np.uint8, order="F")
    mask[:side, left : left + side] = 1
    return coco.encode(mask)


def test_agreement_matches_masks_one_to_one() -> None:
    found = agreement(
        [[_square(10), _square(10), _square(5, left=14)], [_square(8)]],
        [[_square(10), _square(5, left=14)], [_square(8)]],
    )
    assert found["matched_share"] == pytest.approx(3 / 4)
    assert found["equal_count_share"] == 0.5
    assert found["median_count_difference"] == pytest.approx(1 / 6)
    assert agreement([[_square(10)]], [[]])["matched_share"] == 0.0
    assert agreement([[_square(10)]], [[_square(9)]])["matched_share"] == 0.0


def test_points_are_those_of_the_reference_grid() -> None:
    photo = np.zeros((10, 20, 3), np.uint8)
    assert grid_points(photo, 2, 9).tolist() == [[5, 2.5], [15, 2.5], [5, 7.5], [15, 7.5]]


def _stage(seconds: float) -> dict[str, Any]:
    return {"seconds": seconds, "cpu_seconds": 2 * seconds, "peak_bytes": 2**30, "value": None}


def _entries() -> dict[str, dict[str, Any]]:
    rates = {"float32": 1e9, "bfloat16": 2e9}
    sizes = {"size_wh": [4, 3], "passing_share": 0.3, "share_of_prompts_with_a_survivor": 0.5}
    entries: dict[str, dict[str, Any]] = {
        "thresholds": {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.5, **sizes},
        "rate|0|ours": {"value": rates},
        "work|ours": {"value": {n: {"flops": 10**9} for n in ("embed", "score", "generate")}},
    }
    for name, factor in (("ours", 1.0), ("reference", 10.0)):
        for turn, seconds in enumerate((2.0, 4.0, 60.0)):
            stages = {step: _stage(factor * seconds) for step in ("embed", "score", "measure")}
            entries[f"stage|{name}|{turn}"] = {"value": stages}
    return {
        f"peers|vit_b|32|{key}": {"load_average": 1.0, **entry} for key, entry in entries.items()
    }


def test_ratios_and_fractions_are_of_medians() -> None:
    peers = summarise(_entries())["peers"]["vit_b, points per side 32"]
    assert peers["seconds"]["ours"]["embed"] == 4.0
    assert peers["seconds"]["ours"]["by_stages"] == 4.0 + 16 * 8.0
    assert peers["ours_is_faster_by"]["reference"] == dict.fromkeys(
        ("embed", "score", "measure", "by_stages"), 10.0
    )
    assert peers["fraction_of_rate"]["ours"]["embed"] == 0.25


def test_tables_take_the_place_of_the_ones_before(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text("a\n<!-- bench: peers -->\nold\n<!-- end of bench: peers -->\nz\n")
    environment = {"cores": 2, "processor": "any"}
    document = {"environment": environment, **summarise(_entries())}
    for _ in range(2):
        write_docs(document, tmp_path)
        text = page.read_text()
        assert "| reference | 40.00 (10.0×) |" in text
        assert "old" not in text
        assert text.startswith("a\n")
        assert text.endswith("z\n")
    assert put_between("no marks", "peers", ["line"]) == "no marks"


def test_a_contender_that_ends_is_an_error_and_no_hang() -> None:
    task = Task(model="tiny", points_per_side=4, threads=1)
    with ContenderProcess("no such", task) as process, pytest.raises(ContenderError, match="ended"):
        process.ask("load")


def test_a_step_that_fails_says_why() -> None:
    task = Task(model="tiny", points_per_side=4, threads=1)
    with ContenderProcess("ours", task) as process, pytest.raises(ContenderError, match="Unknown"):
        process.ask("no such step", photo="cat")
