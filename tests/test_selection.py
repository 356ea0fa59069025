"""Filters over stored masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.selection import Selection, select
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.mask_table import load_masks
from tests.export.stored_runs import IMAGES, write_run

#: Predicted IoU, stability score, area of five masks of an image of 10 x 20 pixels.
SCORES = np.float32([0.9, 0.7, 0.9, 0.5, 0.8])
STABILITY = np.float32([0.9, 0.95, np.nan, 0.8, 1.0])
AREAS = np.int64([200, 100, 0, 7, 50])


def make_image(image_id: str = "a.jpg") -> ImageMasks:
    return ImageMasks(
        image_id=image_id,
        uri="/in/a.jpg",
        status="ok",
        width=20,
        height=10,
        counts=list("abcde"),
        bbox_xywh=np.zeros((5, 4), np.float32),
        area=AREAS,
        predicted_iou=SCORES,
        stability_score=STABILITY,
        point_coords=np.zeros((5, 2)),
        crop_box_xywh=np.zeros((5, 4), np.int32),
    )


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        pytest.param({}, [0, 1, 2, 3, 4], id="all"),
        pytest.param({"min_iou": 0.7}, [0, 1, 2, 4], id="iou-at-the-limit"),
        pytest.param({"min_iou": 0.9}, [0, 2], id="iou-that-float32-rounds-down"),
        pytest.param({"min_stability": 0.9}, [0, 1, 4], id="stability-without-nan"),
        pytest.param({"min_area": 7}, [0, 1, 3, 4], id="area-at-the-limit"),
        pytest.param({"max_area_fraction": 0.5}, [2, 3, 4], id="fraction-at-the-limit"),
        pytest.param({"top_k": 3}, [0, 2, 4], id="best"),
        pytest.param({"top_k": 1}, [0], id="best-of-a-tie-is-the-first"),
        pytest.param({"top_k": 0}, [], id="none"),
        pytest.param({"top_k": 2, "min_area": 1}, [0, 4], id="best-of-what-passes"),
    ],
)
def test_masks_that_are_chosen(filters: dict[str, Any], expected: list[int]) -> None:
    assert Selection(**filters).choose(make_image()).tolist() == expected


def test_taken_masks_keep_their_columns_together() -> None:
    image = make_image().take(np.array([4, 1]))

    assert image.counts == ["e", "b"]
    assert image.area.tolist() == [50, 100]
    assert image.predicted_iou.tolist() == SCORES[[4, 1]].tolist()


@pytest.mark.parametrize(
    "filters",
    [{"min_iou": 1.5}, {"min_stability": -0.1}, {"max_area_fraction": 2}, {"top_k": -1}],
)
def test_value_out_of_range_is_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Received"):
        Selection(**filters)


@pytest.fixture(scope="module")
def run_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))


def test_images_by_glob_come_in_order(run_output: Path) -> None:
    dataset = load_masks(str(run_output))
    chosen = [image.image_id for image in select(dataset, Selection(images=("b/*", "a.*")))]

    assert chosen == ["a.png", "b/c d.png", "b/c d.webp"]


def test_sample_is_repeatable_and_of_images_that_worked(run_output: Path) -> None:
    dataset = load_masks(str(run_output))

    def draw(**filters: Any) -> list[str]:
        return [image.image_id for image in select(dataset, Selection(**filters))]

    assert draw(sample=2) == draw(sample=2)
    assert len(draw(sample=2)) == 2
    assert set(draw(sample=2)) <= set(draw(sample=3)) <= set(IMAGES)
    assert draw(sample=99) == list(IMAGES)
    assert draw(sample=99, images=("b/*",)) == ["b/c d.png", "b/c d.webp"]
    assert {tuple(draw(sample=2, sample_seed=seed)) for seed in range(9)} != {tuple(draw(sample=2))}
