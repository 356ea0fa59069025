from __future__ import annotations

import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.settings import load_train_config, settings_text

LEAST = "{data: {train: [{path: photos}]}, output: out}"


def test_a_folder_and_an_output_are_enough() -> None:
    config = load_train_config(LEAST)
    assert config.model.variant == "tiny"
    assert config.data.train[0].format == "coco"
    assert config.freezing.is_encoder_fixed


def test_overrides_win() -> None:
    config = load_train_config(
        LEAST, overrides=["optimization.epochs=3", "output=there", "freezing.trained_blocks={0: 1}"]
    )
    assert (config.optimization.epochs, config.output) == (3, "there")
    assert config.freezing.trained_blocks == {0: 1}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimization.epoch=3", "optimization.epochs"),
        ("epochs=3", "optimization.epochs"),
        ("optimisation.epochs=3", "optimization"),
        ("prompts.round=3", "prompts.rounds"),
        ("outputs=x", "output"),
        ("data.train=[{pth: x}]", "path"),
        ("optimization.learning_rate=-1", "greater than 0"),
        ("optimization.epochs=0", "greater than 0"),
        ("optimization.epochs=yes", "true or false"),
        ("data.train=[]", "at least 1"),
        ("data.train=[{path: x, format: voc}]", "coco"),
        ("output=s3://bucket/x", "folder of this machine"),
        ("freezing.trained_blocks={3: 1}", "epoch 0"),
        ("optimization.epochs=[", "YAML"),
        ("optimization.epochs", "override"),
    ],
)
def test_what_is_wrong_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_train_config(LEAST, overrides=[override])


@pytest.mark.parametrize("document", ["", "[1]", "{", "{output: x}"])
def test_a_file_that_says_too_little_is_refused(document: str) -> None:
    with pytest.raises(ConfigError):
        load_train_config(document)


@pytest.mark.parametrize(
    ("override", "fixed"),
    [
        ("freezing.lora_rank=2", False),
        ("freezing={lora_rank: 2, lora_where: decoder}", True),
        ("freezing.trained_blocks=1", False),
        ("freezing.trained_blocks={0: 0, 4: 1}", False),
    ],
)
def test_embeddings_are_cached_only_while_they_stay(override: str, fixed: bool) -> None:
    assert load_train_config(LEAST, overrides=[override]).freezing.is_encoder_fixed is fixed


def test_where_results_go_does_not_make_another_training() -> None:
    first, other, longer = (
        load_train_config(LEAST, overrides=[change])
        for change in ("output=a", "checkpoint_steps=7", "optimization.epochs=11")
    )
    assert settings_text(first.dependencies()) == settings_text(other.dependencies())
    assert settings_text(first.dependencies()) != settings_text(longer.dependencies())
