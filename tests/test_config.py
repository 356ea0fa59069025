"""Settings: validation, the order in which values win, and what the fingerprint depends on."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from amg_pipeline.config import (
    NAMED_AMG_SETTINGS,
    VARIANTS,
    AmgSettings,
    ModelSettings,
    RunConfig,
    amg_settings,
    fingerprint,
    fingerprint_fields,
    load_config,
)
from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.presets import PRESETS

WEIGHTS_SHA256 = "ab" * 32


def fields_of(config: RunConfig, **options: str) -> dict[str, Any]:
    settings = {"weights_sha256": WEIGHTS_SHA256, "package_version": "0.1.0", **options}
    return fingerprint_fields(config, **settings)


def fingerprint_of(*overrides: str, **options: str) -> str:
    return fingerprint(fields_of(load_config(overrides=overrides), **options))


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
    }


def test_variants_are_those_of_the_model() -> None:
    assert set(VARIANTS) == PRESETS.keys()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_config().amg.points_per_side = 3


# What is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        # Unknown names, with the nearest valid one.
        (["amg.pred_iou_tresh=0.9"], "Unknown setting amg.pred_iou_tresh. Did you mean "
         "amg.pred_iou_thresh?"),
        (["images.max_pixel=9"], "Did you mean images.max_pixels?"),
        (["model.varient=tiny"], "Did you mean model.variant?"),
        (["amg.setting=sa1b"], "Did you mean amg.settings?"),
        (["modle.variant=tiny"], "Unknown setting modle. Did you mean model?"),
        # A key that exists in another section.
        (["amg.shard_size=9"], "Unknown setting amg.shard_size. Did you mean output.shard_size?"),
        (["output.limit=9"], "Did you mean images.limit?"),
        # Malformed overrides.
        (["amg.pred_iou_thresh"], "An override must look like section.key=value"),
        (["pred_iou_thresh=1"], "An override must look like section.key=value"),
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
        (["amg.region_of_interest=[0, 5]"], "amg.region_of_interest.2: Field required"),
    ],
    ids=lambda value: ",".join(value)[:60] if isinstance(value, list) else "",
)  # fmt: skip
def test_faulty_override_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=overrides)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param("pred_iou_thresh: 0.3", "Did you mean amg.pred_iou_thresh?", id="no-section"),
        pytest.param("amg: 5", "Section amg must be a mapping. Received: 5", id="number"),
        pytest.param("images: [a]", "Section images must be a mapping. Received: ['a']", id="list"),
        pytest.param("[a]", "must be a YAML mapping of sections (model, amg", id="no-mapping"),
        pytest.param("a: b: c", "must be valid YAML. Received: mapping values", id="no-yaml"),
        pytest.param("1: {}", "1: Keys should be strings", id="number-as-section"),
        pytest.param("amg: {1: 2}", "amg.1: Keys should be strings", id="number-as-key"),
        pytest.param("!!python/object:os.system {}", "must be valid YAML", id="python-object"),
        pytest.param("a: 2020-99-99", "must be valid YAML. Received: month", id="no-date"),
    ],
)
def test_faulty_document_is_refused(document: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(document)

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


def test_amg_settings_names_the_nearest_key() -> None:
    with pytest.raises(ConfigError, match=r"Unknown setting amg\.point_per_side\. Did you mean "):
        amg_settings("tiny", point_per_side=3)


# Which value wins


def test_no_input_gives_the_defaults_of_tiny() -> None:
    config = load_config()

    assert config.model == ModelSettings()
    assert config.model.variant == "tiny"
    assert config.amg == amg_settings("tiny")
    assert config.amg.pred_iou_thresh < AmgSettings().pred_iou_thresh


@pytest.mark.parametrize("document", [None, "", "amg:\nimages:\n"], ids=["none", "empty", "bare"])
def test_empty_document_is_no_document(document: str | None) -> None:
    assert load_config(document) == load_config()


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_published_variants_have_the_defaults_of_the_reference(variant: str) -> None:
    assert load_config(overrides=[f"model.variant={variant}"]).amg == AmgSettings()


@pytest.mark.parametrize("variant", [None, "of-a-user"])
def test_unknown_model_has_the_defaults_of_the_reference(variant: str | None) -> None:
    assert amg_settings(variant) == AmgSettings()


LAYERS = (
    {"document": None},
    {"document": "amg: {settings: sa1b}"},
    {"document": "amg: {settings: sa1b, pred_iou_thresh: 0.1}"},
    {"document": "amg: {settings: sa1b, pred_iou_thresh: 0.1}",
     "settings": {"amg": {"pred_iou_thresh": 0.2}}},
    {"document": "amg: {settings: sa1b, pred_iou_thresh: 0.1}",
     "settings": {"amg": {"pred_iou_thresh": 0.2}},
     "overrides": ["amg.pred_iou_thresh=0.3"]},
    {"overrides": ["amg.pred_iou_thresh=0.3", "amg.pred_iou_thresh=0.4"]},
)  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "expected"),
    list(zip(LAYERS, (0.27, 0.88, 0.1, 0.2, 0.3, 0.4), strict=True)),
    ids=["model", "named", "file", "options", "override", "last-override"],
)
def test_the_nearer_value_wins(layers: dict[str, Any], expected: float) -> None:
    assert load_config(**layers).amg.pred_iou_thresh == expected


def test_variant_of_an_option_picks_the_amg_defaults() -> None:
    config = load_config("model: {variant: tiny}", settings={"model": {"variant": "vit_b"}})

    assert config.amg == AmgSettings()


def test_load_config_leaves_its_arguments_alone() -> None:
    settings = {"amg": {"min_area": 1}}

    load_config(overrides=["amg.min_area=2"], settings=settings)

    assert settings == {"amg": {"min_area": 1}}


def test_sa1b_is_the_recipe_of_the_paper() -> None:
    settings = load_config(overrides=["amg.settings=sa1b"]).amg

    assert NAMED_AMG_SETTINGS["sa1b"].items() <= settings.model_dump().items()
    assert settings.crop_n_layers == 2
    assert settings.crop_n_points_downscale_factor == 2
    assert settings.max_area_fraction == 0.95
    assert amg_settings("vit_h", settings="sa1b") == settings


def test_single_key_wins_over_named_settings_in_any_order() -> None:
    first = load_config(overrides=["amg.crop_n_layers=1", "amg.settings=sa1b"])

    assert first.amg.crop_n_layers == 1
    assert first == load_config(overrides=["amg.settings=sa1b", "amg.crop_n_layers=1"])


# The fingerprint

#: Another valid value of each setting that changes the output.
CHANGES = {
    "model.variant": "vit_b",
    "model.backend": "jax",
    "model.precision": "fast",
    "model.encoder_batch_size": 2,
    "model.intra_op_threads": 3,
    "amg.points_per_side": 16,
    "amg.points_per_batch": 32,
    "amg.pred_iou_thresh": 0.6,
    "amg.stability_score_thresh": 0.66,
    "amg.stability_score_offset": 2.0,
    "amg.box_nms_thresh": 0.5,
    "amg.crop_n_layers": 1,
    "amg.crop_nms_thresh": 0.5,
    "amg.crop_overlap_ratio": 0.5,
    "amg.crop_n_points_downscale_factor": 2,
    "amg.min_mask_region_area": 100,
    "amg.min_area": 5,
    "amg.max_area": 500,
    "amg.max_area_fraction": 0.5,
    "amg.nms_kind": "mask",
    "amg.region_of_interest": [0, 0, 5, 5],
    "images.input": "/elsewhere",
    "images.column": "photo",
    "images.include": ["*.png"],
    "images.exclude": ["*.gif"],
    "images.limit": 5,
    "images.sample": 5,
    "images.sample_seed": 1,
    "images.exif_orientation": False,
    "images.max_pixels": 1000,
    "output.shard_size": 7,
}
#: Changing it takes a second setting, see `test_point_grids_change_the_fingerprint`.
CHANGED_TOGETHER = {"amg.point_grids"}
WITHOUT_EFFECT = {
    "model.weights": "/w.pth",
    "output.uri": "s3://elsewhere/out",
    "workers.workers": 9,
    "workers.gpus_per_worker": 0.5,
    "workers.decode_threads": 9,
    "workers.address": "ray://head:10001",
    "workers.image_timeout_seconds": 7.5,
    "workers.memory_limit_bytes": 2**31,
    "workers.price_per_hour": 1.5,
    "storage.endpoint_url": "http://127.0.0.1:9000",
    "storage.region": "eu-central-1",
    "storage.profile": "other",
    "storage.anonymous": True,
    "storage.connect_timeout_seconds": 1.5,
    "storage.read_timeout_seconds": 1.5,
    "storage.request_timeout_seconds": 1.5,
}


def test_tables_name_every_setting() -> None:
    def sections() -> dict[str, type[BaseModel]]:
        return {name: field.annotation for name, field in RunConfig.model_fields.items()}

    every = {
        f"{name}.{key}" for name, section in sections().items() for key in section.model_fields
    }

    assert CHANGES.keys() | CHANGED_TOGETHER | WITHOUT_EFFECT.keys() == every


@pytest.mark.parametrize(("name", "value"), list(CHANGES.items()), ids=list(CHANGES))
def test_setting_changes_the_fingerprint(name: str, value: object) -> None:
    before, after = load_config(), load_config(overrides=[f"{name}={json.dumps(value)}"])
    old, new = fields_of(before), fields_of(after)

    assert fingerprint(old) != fingerprint(new)
    changed = {key for key in old if old[key] != new[key]}
    # The model's own AMG defaults come with it.
    assert changed - {"amg.pred_iou_thresh", "amg.stability_score_thresh"} == {name} - {
        "amg.pred_iou_thresh",
        "amg.stability_score_thresh",
    }
    assert name in changed


@pytest.mark.parametrize(("name", "value"), list(WITHOUT_EFFECT.items()), ids=list(WITHOUT_EFFECT))
def test_setting_leaves_the_fingerprint_alone(name: str, value: object) -> None:
    assert fingerprint_of(f"{name}={json.dumps(value)}") == fingerprint_of()


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


def test_point_grids_change_the_fingerprint() -> None:
    one = fingerprint_of("amg.points_per_side=null", "amg.point_grids=[[[0.5, 0.5]]]")
    other = fingerprint_of("amg.points_per_side=null", "amg.point_grids=[[[0.5, 0.6]]]")

    assert len({one, other, fingerprint_of()}) == 3


def test_weights_and_minor_version_change_the_fingerprint() -> None:
    assert fingerprint_of() != fingerprint_of(weights_sha256="cd" * 32)
    assert fingerprint_of() != fingerprint_of(package_version="0.2.0")
    assert fingerprint_of() != fingerprint_of(package_version="1.1.0")
    assert fingerprint_of() == fingerprint_of(package_version="0.1.7")


def test_number_is_the_same_however_it_is_written() -> None:
    texts = ("0.5", "5.0e-1", "'0.5'", "0.50")

    assert len({fingerprint_of(f"amg.pred_iou_thresh={text}") for text in texts}) == 1


@given(seed=st.integers(0, 2**32))
def test_fingerprint_does_not_depend_on_the_order_of_keys(seed: int) -> None:
    fields = list(fields_of(load_config()).items())
    random.Random(seed).shuffle(fields)

    assert fingerprint(dict(fields)) == fingerprint_of()


def test_fingerprint_is_64_hex_digits_and_survives_json() -> None:
    fields = fields_of(load_config())

    assert fingerprint(json.loads(json.dumps(fields))) == fingerprint(fields)
    assert len(bytes.fromhex(fingerprint(fields))) == 32


def test_config_survives_json() -> None:
    config = load_config(overrides=["amg.point_grids=[[[0.1, 0.2]]]", "amg.points_per_side=null"])

    assert RunConfig.model_validate(config.model_dump(mode="json")) == config
