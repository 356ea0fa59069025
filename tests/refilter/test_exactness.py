"""What can be had from a stored run, and the reasons for what can't."""

from __future__ import annotations

import pytest

from amg_pipeline.config import RunConfig, load_config
from amg_pipeline.errors import ConfigError
from amg_pipeline.refilter.exactness import check_exact

STORED = ("amg.pred_iou_thresh=0.8", "amg.min_area=10", "amg.max_area=1000")


def config(*overrides: str) -> RunConfig:
    return load_config(overrides=[*STORED, *overrides])


@pytest.mark.parametrize(
    "change",
    [
        "amg.pred_iou_thresh=0.8",
        "amg.pred_iou_thresh=0.9",
        "amg.min_area=11",
        "amg.max_area=999",
        "amg.max_area_fraction=0.9",
        "output.uri=elsewhere",
        "workers.workers=3",
    ],
)
def test_tighter_setting_is_accepted(change: str) -> None:
    check_exact(config(), config(change))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("amg.pred_iou_thresh=0.7", "more masks than were stored"),
        ("amg.min_area=9", "more masks than were stored"),
        ("amg.max_area=null", "more masks than were stored"),
        ("amg.max_area=1001", "more masks than were stored"),
        ("amg.stability_score_thresh=0.99", "might have to come back"),
        ("amg.stability_score_thresh=0.1", "more masks than were stored"),
        ("amg.box_nms_thresh=0.6", "might have to come back"),
        ("amg.nms_kind=mask", "might have to come back"),
        ("amg.min_mask_region_area=5", "might have to come back"),
        ("amg.points_per_side=16", "which masks the model finds"),
        ("amg.stability_score_offset=0.5", "which masks the model finds"),
        ("amg.keep_candidates=true", "candidates were not stored"),
        ("model.variant=vit_b", "which masks the model finds"),
        ("images.limit=5", "which masks the model finds"),
        ("output.shard_size=5", "lie in one shard"),
    ],
)
def test_what_a_fresh_run_would_do_otherwise_is_refused(change: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_exact(config(), config(change))


@pytest.mark.parametrize("stored", ["amg.crop_n_layers=1", "amg.min_mask_region_area=5"])
def test_predicted_iou_after_other_rankings_is_refused(stored: str) -> None:
    with pytest.raises(ConfigError, match=r"need not have won.*keep_candidates"):
        check_exact(config(stored), config(stored, "amg.pred_iou_thresh=0.9"))
    check_exact(config(stored), config(stored, "amg.min_area=20"))


@pytest.mark.parametrize(
    "change",
    [
        "amg.stability_score_thresh=0.99",
        "amg.box_nms_thresh=0.9",
        "amg.crop_nms_thresh=0.1",
        "amg.nms_kind=mask",
        "amg.min_mask_region_area=5",
        "amg.pred_iou_thresh=0.9",
        "amg.min_area=0",
        "amg.max_area=null",
        "amg.keep_candidates=false",
    ],
)
def test_candidates_allow_all_that_follows_the_model(change: str) -> None:
    stored = "amg.keep_candidates=true"

    check_exact(config(stored), config(stored, change))


@pytest.mark.parametrize(
    "change",
    ["amg.pred_iou_thresh=0.7", "amg.stability_score_thresh=0.1", "amg.crop_n_layers=1"],
)
def test_candidates_have_limits_too(change: str) -> None:
    stored = "amg.keep_candidates=true"

    with pytest.raises(ConfigError, match=change.partition("=")[0]):
        check_exact(config(stored), config(stored, change))


def test_all_reasons_are_given() -> None:
    with pytest.raises(ConfigError, match=r"box_nms_thresh=0.6 .*; amg.nms_kind='mask'"):
        check_exact(config(), config("amg.nms_kind=mask", "amg.box_nms_thresh=0.6"))
