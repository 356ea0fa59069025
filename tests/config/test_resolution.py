"""Which value wins, and what is said of a document that cannot be read."""

from __future__ import annotations

from typing import Any

import pytest

from amg_pipeline.config import (
    NAMED_AMG_SETTINGS,
    AmgSettings,
    ModelSettings,
    amg_settings,
    load_config,
)
from amg_pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("document", "message"),
    [
        pytest.param("pred_iou_thresh: 0.3", "Did you mean amg.pred_iou_thresh?", id="no-section"),
        pytest.param("amg: 5", "Section amg must be a mapping. Received: 5", id="number"),
        pytest.param("images: [a]", "Section images must be a mapping. Received: ['a']", id="list"),
        pytest.param("[a]", "must be a YAML mapping with model, amg", id="no-mapping"),
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


def test_amg_settings_names_the_nearest_key() -> None:
    with pytest.raises(ConfigError, match=r"Unknown setting amg\.point_per_side\. Did you mean "):
        amg_settings("tiny", point_per_side=3)


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
     "settings": {"amg": {"pred_iou_thresh": 0.25}}},
    {"document": "amg: {settings: sa1b, pred_iou_thresh: 0.1}",
     "settings": {"amg": {"pred_iou_thresh": 0.25}},
     "overrides": ["amg.pred_iou_thresh=0.3"]},
    {"overrides": ["amg.pred_iou_thresh=0.3", "amg.pred_iou_thresh=0.4"]},
)  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "expected"),
    list(zip(LAYERS, (0.33, 0.88, 0.1, 0.25, 0.3, 0.4), strict=True)),
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
