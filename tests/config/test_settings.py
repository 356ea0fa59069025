"""What a setting may be: defaults, ranges, and settings that belong together."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from amg_pipeline.config import (
    VARIANTS,
    AmgSettings,
    RunConfig,
    load_config,
)
from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.presets import PRESETS


def test_reference_defaults() -> None:
    """The values of `SamAutomaticMaskGenerator`, and ours off."""
    assert AmgSettings().model_dump() == {
        "points_per_side": 32,
        "points_per_batch": 64,
        "pred_iou_thresh": 0.88,
        "stability_score_thresh": 0.95,
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.7,
        "crop_n_layers": 0,
        "crop_nms_thresh": 0.7,
        "crop_overlap_ratio": 512 / 1500,
        "crop_n_points_downscale_factor": 1,
        "point_grids": None,
        "min_mask_region_area": 0,
        "min_area": 0,
        "max_area": None,
        "max_area_fraction": 1.0,
        "nms_kind": "box",
        "region_of_interest": None,
        "keep_candidates": False,
    }


def test_variants_are_those_of_the_model() -> None:
    assert set(VARIANTS) == PRESETS.keys()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config().amg.points_per_side = 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # Unknown names, with the nearest valid one.
        (["amg.pred_iou_tresh=0.9"], "Unknown setting amg.pred_iou_tresh. Did you mean "
         "amg.pred_iou_thresh?"),
        (["images.max_pixel=9"], "Did you mean images.max_pixels?"),
        (["model.varient=tiny"], "Did you mean model.variant?"),
        (["amg.setting=sa1b"], "Did you mean amg.settings?"),
        (["pred_iou_thresh=1"], "Did you mean amg.pred_iou_thresh?"),
        (["modle.variant=tiny"], "Unknown setting modle. Did you mean model?"),
        # A key that exists in another section.
        (["amg.shard_size=9"], "Unknown setting amg.shard_size. Did you mean output.shard_size?"),
        (["output.limit=9"], "Did you mean images.limit?"),
        # Malformed overrides.
        (["amg.pred_iou_thresh"], "An override must look like section.key=value"),
        (["amg.=1"], "An override must look like section.key=value"),
        (["amg.min_area=[1"], "The value of amg.min_area must be valid YAML. Received: '[1'"),
        (["images.input=2020-99-99"], "The value of images.input must be valid YAML"),
        (["images.include=*.jpg"], "must be valid YAML. Received: '*.jpg'; quote it for YAML, as "
         "in 'images.include=[\"*.jpg\"]', or use --include"),
        (["images.input=*.jpg"], "quote it for YAML, as in 'images.input=\"*.jpg\"'"),
        # Choices.
        (["model.variant=vit_x"], "model.variant: Input should be 'tiny', 'vit_b', 'vit_l' or "
         "'vit_h'. Received: 'vit_x'"),
        (["model.variant=[tiny]"], "model.variant: Input should be 'tiny'"),
        (["model.backend=numpy"], "model.backend: Input should be 'tensorflow', 'jax' or 'torch'"),
        (["model.precision=half"], "model.precision: Input should be 'strict' or 'fast'"),
        (["amg.nms_kind=soft"], "amg.nms_kind: Input should be 'box' or 'mask'"),
        (["amg.settings=sa2"], "amg.settings must be one of sa1b. Received: 'sa2'"),
        (["amg.settings=[sa1b]"], "amg.settings must be one of sa1b. Received: ['sa1b']"),
        # Numbers out of range: fractions on both sides, NaN, counts of zero.
        (["amg.pred_iou_thresh=1.5"], "less than or equal to 1. Received: 1.5"),
        (["amg.pred_iou_thresh=-0.1"], "greater than or equal to 0. Received: -0.1"),
        (["amg.stability_score_thresh=1.01"], "less than or equal to 1"),
        (["amg.box_nms_thresh=2"], "less than or equal to 1"),
        (["amg.crop_nms_thresh=2"], "less than or equal to 1"),
        (["amg.crop_overlap_ratio=-1"], "greater than or equal to 0"),
        (["amg.stability_score_offset=0"], "greater than 0"),
        (["amg.stability_score_offset=.inf"], "finite number"),
        (["amg.pred_iou_thresh=.nan"], "finite number"),
        (["amg.max_area_fraction=0"], "greater than 0"),
        (["amg.max_area_fraction=1.1"], "less than or equal to 1"),
        (["amg.points_per_side=0"], "greater than 0"),
        (["amg.points_per_side=true"], "amg.points_per_side: must be another value than true or"),
        (["amg.pred_iou_thresh=yes"], "true or false, received True"),
        (["workers.workers=on"], "true or false, received True"),
        (["images.exif_orientation=2"], "valid boolean"),
        (["amg.points_per_batch=0"], "greater than 0"),
        (["amg.crop_n_layers=-1"], "greater than or equal to 0"),
        (["amg.crop_n_layers=7"], "less than or equal to 6"),
        (["amg.crop_n_points_downscale_factor=0"], "greater than 0"),
        (["amg.min_mask_region_area=-1"], "greater than or equal to 0"),
        (["amg.min_area=-1"], "greater than or equal to 0"),
        (["amg.max_area=0"], "greater than 0"),
        (["amg.min_area=many"], "valid integer"),
        (["images.limit=0"], "images.limit: Input should be greater than 0. Received: 0"),
        (["images.sample=0"], "greater than 0"),
        (["images.sample_seed=-1"], "greater than or equal to 0"),
        (["images.max_pixels=0"], "greater than 0"),
        (["images.include=a"], "images.include: Input should be a valid tuple. Received: 'a'"),
        (["output.shard_size=0"], "greater than 0"),
        (["model.encoder_batch_size=0"], "greater than 0"),
        (["model.intra_op_threads=0"], "greater than 0"),
        (["workers.workers=0"], "greater than 0"),
        (["workers.gpus_per_worker=-0.5"], "greater than or equal to 0"),
        (["workers.decode_threads=0"], "greater than 0"),
        # Settings that only make sense together.
        (["amg.points_per_side=null"], "amg: exactly one of points_per_side and point_grids"),
        (["amg.point_grids=[[[0.5, 0.5]]]"], "amg: exactly one of points_per_side and point_grids"),
        (["amg.point_grids=[[[0, 2]]]", "amg.points_per_side=null"], "amg.point_grids.0.0.1: Input "
         "should be less than or equal to 1"),
        (["amg.point_grids=[[[0, 1]]]", "amg.points_per_side=null", "amg.crop_n_layers=1"],
         "point_grids must hold crop_n_layers + 1 = 2 grids, received 1"),
        (["amg.points_per_side=null", "amg.crop_n_layers=1", "amg.point_grids=[[[0, 1]], []]"],
         "amg.point_grids.1: Tuple should have at least 1 item"),
        (["amg.points_per_side=4", "amg.crop_n_layers=3", "amg.crop_n_points_downscale_factor=2"],
         "points_per_side=4, which is 0 in crop layer 3"),
        (["amg.min_area=9", "amg.max_area=8"], "max_area must be at least min_area (9)"),
        (["amg.region_of_interest=[0, 0, 0, 5]"], "region_of_interest must be XYXY with x1 > x0"),
        (["amg.region_of_interest=[0, 5, 5, 5]"], "region_of_interest must be XYXY with x1 > x0"),
        (["amg.region_of_interest=[0, 5]"], "interest.2: Field required. Received: [0, 5]"),
    ],
    ids=lambda value: ",".join(value)[:60] if isinstance(value, list) else "",
)  # fmt: skip
def test_faulty_override_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["amg.pred_iou_thresh=0", "amg.box_nms_thresh=1"], id="closed-fractions"),
        pytest.param(["amg.min_area=9", "amg.max_area=9"], id="equal-areas"),
        pytest.param(["amg.points_per_side=null", "amg.point_grids=[[[0, 1]]]"], id="one-grid"),
        pytest.param(
            [
                "amg.points_per_side=null",
                "amg.crop_n_layers=1",
                "amg.point_grids=[[[0, 1]], [[1, 0]]]",
            ],
            id="a-grid-per-layer",
        ),
        pytest.param(["amg.region_of_interest=[-5, 0, 0.5, 1]"], id="region-beyond-the-image"),
        pytest.param(["workers.gpus_per_worker=0"], id="no-gpu"),
        pytest.param(["images.exif_orientation=no"], id="switch"),
        pytest.param(['images.include=["*.jpg"]'], id="quoted-glob"),
        pytest.param(
            [
                "amg.points_per_side=9",
                "amg.crop_n_layers=3",
                "amg.crop_n_points_downscale_factor=2",
            ],
            id="one-point-in-the-last-layer",
        ),
    ],
)
def test_edge_of_the_range_is_accepted(overrides: list[str]) -> None:
    load_config(overrides=overrides)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9000", "http://user:pass-word@host", "https://host?token=pass-word"]
)
def test_endpoint_is_an_address_without_credentials(address: str) -> None:
    with pytest.raises(ConfigError, match=r"storage\.endpoint_url: must") as caught:
        load_config(overrides=[f"storage.endpoint_url={address}"])
    assert "pass-word" not in str(caught.value)


def test_credentials_have_no_place_among_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"Unknown setting storage\.secret") as caught:
        load_config("storage: {secret: pass-word}")
    assert "pass-word" not in str(caught.value)


def test_config_survives_json() -> None:
    config = load_config(overrides=["amg.point_grids=[[[0.1, 0.2]]]", "amg.points_per_side=null"])

    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
