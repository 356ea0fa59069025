from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from amg_pipeline.evaluation.clicking import mask_iou
from benchmarks.classical_segments import METHODS, Method, segment_image
from benchmarks.tiny_quality import (
    MODEL,
    Rows,
    measure_method,
    measure_part,
    summarize_method,
    summarize_model,
    table_lines,
)
from tests.evaluation.discs import SIZE, annotated, disc

DISC = disc(30, 20, 9)
#: Coarse: everything is one region. Middle: the disc and the rest. Fine: its left half apart.
HALF = DISC & (np.arange(SIZE[1]) < 30)
MAPS = [np.zeros(SIZE, int), DISC.astype(int), DISC + HALF.astype(int)]
FAKE = Method("fake", ("coarse", "middle", "fine"), lambda image: MAPS)


def test_rows_survive_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    Rows(path).add("a", {"x": 1})
    with path.open("a") as file:
        file.write('{"image_id": "b", "x"')

    rows = Rows(path)
    rows.add("c", {"x": 3})

    assert {name: row["x"] for name, row in Rows(path).by_id.items()} == {"a": 1, "c": 3}


def test_part_goes_on_where_it_stopped(tmp_path: Path) -> None:
    images = [annotated(name, [DISC]) for name in "abc"]
    path = tmp_path / "rows.jsonl"
    Rows(path).add("a", {"n": 0})
    asked: list[str] = []

    def load():  # type: ignore[no-untyped-def]
        return lambda image: asked.append(image.image_id) or {"n": len(asked)}

    assert measure_part("x", images, path, load, deadline=-1.0) is None
    assert asked == []
    rows = measure_part("x", images, path, load, deadline=float("inf"))

    assert asked == ["b", "c"]
    assert rows is not None
    assert [row["n"] for row in rows] == [0, 1, 2]


def test_method_is_taken_at_its_best_settings() -> None:
    row = measure_method(FAKE)(annotated("a", [DISC, HALF]))

    summary = summarize_method(FAKE, [json.loads(json.dumps(row))])

    # The click at the disc's middle hits its right half at "fine"; HALF is found by "fine" alone.
    assert summary["top_scored_setting"] == "fine"
    right = mask_iou(DISC & ~HALF, DISC)
    assert summary["top_scored"] == pytest.approx((right + 1) / 2, abs=1e-4)
    assert summary["best_of_three"] == 1.0
    assert summary["ar_at_100"] == 1.0
    assert summary["ar_at_100_settings"] == "the coarsest 3"


def test_model_row_gives_the_figures() -> None:
    row = {
        "ious": [[0.2, 0.8, 0.4], [0.6, 0.5, 0.1]],
        "predicted_iou": [[0.1, 0.9, 0.2], [0.3, 0.4, 0.0]],
        "proposals": 7,
        "recall": {"hits": [1.0, 1.5], "segments": 2},
        "masks": {"default": 30, "loose": 4},
    }

    summary = summarize_model([row])

    assert summary["best_of_three"] == pytest.approx(0.7)
    assert summary["top_scored"] == pytest.approx(0.65)
    assert (summary["ar_at_100"], summary["ar_at_1000"]) == (0.5, 0.75)
    assert summary["masks_per_photo"]["loose"] == {"least": 4, "median": 4.0, "most": 4}
    assert (summary["photos_with_10_to_150_default"], summary["photos_with_8_loose"]) == (1, 0)
    assert summary["spearman"] > 0.9
    lines = list(table_lines({MODEL: summary, "classical": {}}))
    assert lines[-1] == "| `tiny` | 0.700 | 0.650 | 0.500 | 0.750 |"


@pytest.mark.parametrize("name", ["felzenszwalb", "slic", "watershed", "merging"])
def test_classical_method_finds_a_bright_disc(name: str) -> None:
    image = np.full((64, 96, 3), 40, np.uint8)
    truth = disc(48, 32, 18, (64, 96))
    image[truth] = (220, 60, 60)
    method = METHODS[name]

    label_maps = segment_image(method, image)

    assert len(label_maps) == len(method.settings)
    assert max(mask_iou(labels == labels[32, 48], truth) for labels in label_maps) > 0.9


def test_merging_ends_at_one_region() -> None:
    image = np.full((48, 64, 3), 90, np.uint8)
    image[:, 32:] += 2  # a step that every setting merges away
    label_maps = segment_image(METHODS["merging"], image)
    assert len(label_maps) == len(METHODS["merging"].settings)
    assert all(np.array_equal(labels, np.ones((48, 64))) for labels in label_maps)
