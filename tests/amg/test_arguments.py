from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from amg_pipeline.amg.arguments import (
    POSITIONAL_SETTINGS,
    check_image,
    check_output_mode,
    check_region,
    merge_positional,
    resolve_model,
)
from amg_pipeline.config import AmgSettings, amg_settings, resolution
from amg_pipeline.errors import ConfigError
from tests.fakes import DiscModel, DiscSegmenter


def test_positions_are_those_of_the_settings():
    # The fields of AmgSettings begin as the reference's arguments do.
    names = tuple(AmgSettings.model_fields)
    names = names[: names.index("min_mask_region_area") + 1]
    assert (*names, "output_mode") == POSITIONAL_SETTINGS


def test_positional_settings_get_their_names():
    merged = merge_positional((16, 32), {"pred_iou_thresh": 0.5})
    assert merged == {"points_per_side": 16, "points_per_batch": 32, "pred_iou_thresh": 0.5}


def test_setting_given_twice_is_refused():
    with pytest.raises(ConfigError, match=r"both for: points_per_batch"):
        merge_positional((16, 32), {"points_per_batch": 8})


def test_too_many_positions_are_refused():
    with pytest.raises(ConfigError, match="At most 13"):
        merge_positional((0,) * 14, {})


@pytest.mark.parametrize(
    "image",
    [
        pytest.param([[[1, 2, 3]]], id="list"),
        pytest.param(np.zeros((4, 4, 3)), id="float"),
        pytest.param(np.zeros((4, 4), np.uint8), id="gray"),
        pytest.param(np.zeros((4, 4, 4), np.uint8), id="alpha"),
        pytest.param(np.zeros((3, 4, 4), np.uint8), id="channels-first"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), id="no-rows"),
    ],
)
def test_other_images_are_refused_with_what_was_received(image: Any):
    with pytest.raises(ConfigError, match=r"uint8 array \(height, width, 3\).*Received"):
        check_image(image)


def test_proper_image_gives_its_size():
    assert check_image(np.zeros((4, 5, 3), np.uint8)) == (4, 5)


@pytest.mark.parametrize(
    "region",
    [
        pytest.param(np.ones((5, 4), bool), id="transposed-mask"),
        pytest.param(np.ones((4, 5), np.uint8), id="mask-of-numbers"),
        pytest.param((1, 2, 3), id="three-corners"),
    ],
)
def test_other_regions_are_refused(region: Any):
    with pytest.raises(ConfigError, match=r"region_of_interest.*Received"):
        check_region(region, height=4, width=5)


def test_regions_are_accepted():
    mask = np.ones((4, 5), bool)
    assert check_region(mask, height=4, width=5) is mask
    assert check_region(np.array([1, 2, 3, 4]), height=4, width=5) == (1.0, 2.0, 3.0, 4.0)
    assert check_region(None, height=4, width=5) is None


def test_unknown_output_mode_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="binary_mask, uncompressed_rle, coco_rle"):
        check_output_mode("polygon")


def test_models_defaults_apply_below_the_callers_settings():
    _, settings = resolve_model(
        DiscSegmenter([], variant="tiny"), {"pred_iou_thresh": 0.7}, encoder_batch_size=1
    )
    tiny = amg_settings("tiny")
    assert settings.pred_iou_thresh == 0.7
    assert settings.stability_score_thresh == tiny.stability_score_thresh


def test_factory_is_asked_for_the_batch_sizes():
    model = DiscModel([])
    segmenter, _ = resolve_model(model, {"points_per_batch": 9}, encoder_batch_size=3)
    assert model.requested == [(9, 3)]
    assert segmenter is model.made[0]


def test_factory_is_asked_again_if_the_models_own_batch_differs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resolution, "_AMG_DEFAULTS", {"big": {"points_per_batch": 128}})
    model = DiscModel([], variant="big")
    segmenter, settings = resolve_model(model, {}, encoder_batch_size=1)
    assert settings.points_per_batch == 128
    assert model.requested == [(64, 1), (128, 1)]
    assert segmenter is model.made[1]


def test_point_grids_may_be_arrays():
    grids: Sequence[np.ndarray] = [np.array([[0.25, 0.5]], np.float64)]
    _, settings = resolve_model(
        DiscSegmenter([]), {"points_per_side": None, "point_grids": grids}, encoder_batch_size=1
    )
    assert settings.point_grids == (((0.25, 0.5),),)


def test_model_of_neither_kind_is_refused_by_name():
    with pytest.raises(ConfigError, match="Received: dict"):
        resolve_model({}, {}, encoder_batch_size=1)
