"""The settings in `jobs/configs/`: each loads, and holds nothing that is the default anyway."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from amg_pipeline.config import VARIANTS, load_config

FILES = sorted((Path(__file__).parents[2] / "jobs" / "configs").glob("*.yaml"))


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def test_there_are_settings() -> None:
    assert {file.stem for file in FILES} >= {"tiny", "vit_h"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_settings_load(file: Path) -> None:
    config = load_config(_text(file))

    assert file.stem.startswith(config.model.variant)
    assert config.model.variant in VARIANTS
    # Whose data and which weights is the command's matter.
    assert (config.images.input, config.output.uri, config.model.weights) == ("", "", None)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_settings_hold_no_default(file: Path) -> None:
    whole = yaml.safe_load(_text(file))
    resolved = load_config(_text(file))
    for section, values in whole.items():
        for key in values:
            if (section, key) == ("model", "variant"):
                continue
            kept = {name: value for name, value in values.items() if name != key}
            without = load_config(yaml.safe_dump({**whole, section: kept}))
            assert without != resolved, f"{section}.{key}"


def test_recipe_of_sa1b_is_the_named_one() -> None:
    config = load_config(_text(FILES[0].with_name("vit_h_sa1b.yaml")))

    assert (config.amg.crop_n_layers, config.amg.max_area_fraction) == (2, 0.95)
