from __future__ import annotations

import numpy as np

from amg_pipeline.amg.scores import (
    crop_scores,
    passes_areas,
    passes_predicted_iou,
    passes_stability,
    stability_scores,
)
from amg_pipeline.config import AmgSettings
from amg_pipeline.records import CropBox


def test_predicted_iou_must_exceed_the_float32_threshold():
    just_above = np.nextafter(np.float32(0.88), np.float32(1))
    scores = np.array([[0.88, just_above, 0.5]], np.float32)
    # float32(0.88) is less than 0.88; compared in float64 the answer would differ at 0.1.
    assert passes_predicted_iou(scores, 0.88).tolist() == [[False, True, False]]
    assert passes_predicted_iou(np.array([0.1], np.float32), 0.1).tolist() == [False]


def test_threshold_zero_keeps_negative_and_undefined_scores():
    scores = np.array([-0.5, np.nan, 0.0], np.float32)
    assert passes_predicted_iou(scores, 0.0).all()
    assert passes_stability(scores, 0.0).all()


def test_stability_is_a_float32_ratio():
    scores = stability_scores(np.array([1, 0, 5, 0]), np.array([3, 7, 5, 0]))
    assert scores.dtype == np.float32
    assert scores[0] == np.float32(1) / np.float32(3)
    assert scores[1:3].tolist() == [0.0, 1.0]
    assert np.isnan(scores[3])


def test_stability_may_equal_the_threshold_and_must_be_defined():
    scores = np.array([0.95, np.nextafter(np.float32(0.95), np.float32(0)), np.nan], np.float32)
    assert passes_stability(scores, 0.95).tolist() == [True, False, False]


def test_smaller_crops_score_higher():
    crops = [CropBox(0, 0, 30, 20, layer=0), CropBox(0, 0, 10, 10, layer=1)]
    scores = crop_scores(crops)
    assert scores.dtype == np.float32
    assert scores.tolist() == [np.float32(1 / 600), np.float32(0.01)]
    assert crop_scores([]).shape == (0,)


def test_areas_may_equal_their_limits_but_not_the_fraction():
    areas = np.array([9, 10, 50, 51, 60])
    settings = AmgSettings(min_area=10, max_area=51)
    assert passes_areas(areas, settings, image_area=100).tolist() == [
        False,
        True,
        True,
        True,
        False,
    ]
    settings = AmgSettings(max_area_fraction=0.5)
    image_areas = np.array([100, 100, 100, 103, 60])
    assert passes_areas(areas, settings, image_area=image_areas).tolist() == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert passes_areas(areas, AmgSettings(), image_area=9).all()
