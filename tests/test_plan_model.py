"""The model of a plan: that it can be made is known before anything is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amg_pipeline.config import ModelSettings
from amg_pipeline.errors import (
    ConfigError,
    WeightsError,
)
from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights.architecture import expected_shapes, of_preset
from amg_pipeline.sam.weights.safetensors_file import write_safetensors
from amg_pipeline.sam.weights.tensors import SourceTensor
from tests.photo_runs import everything_in
from tests.plans import finish, plan_run, write_names


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_names(tmp_path / "in")


def refuse(model: ModelSettings) -> None:
    raise WeightsError("they do not fit")


@pytest.mark.parametrize("dry_run", [False, True])
def test_model_that_cannot_be_made_leaves_no_plan(
    photos: Path, tmp_path: Path, dry_run: bool
) -> None:
    with pytest.raises(WeightsError):
        plan_run(photos, tmp_path / "out", check_model=refuse, dry_run=dry_run)
    assert not (tmp_path / "out").exists()
    assert not plan_run(photos, tmp_path / "out").is_resumed


def test_model_that_cannot_be_made_moves_nothing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(plan_run(photos, out))
    before = everything_in(out)
    with pytest.raises(WeightsError):
        plan_run(photos, out, "amg.min_area=1", force=True, check_model=refuse)
    assert everything_in(out) == before


def test_model_of_a_plan_that_is_there_is_not_checked_again(photos: Path, tmp_path: Path) -> None:
    plan_run(photos, tmp_path / "out")
    assert plan_run(photos, tmp_path / "out", check_model=refuse).is_resumed


def write_weights(path: Path, variant: str) -> Path:
    """Write zeros in the shapes of a variant."""
    tensors = {
        name: SourceTensor(name, shape, "float32", lambda shape=shape: np.zeros(shape, np.float32))
        for name, shape in expected_shapes(of_preset(PRESETS[variant])).items()
    }
    with path.open("wb") as file:
        write_safetensors(file, tensors, dtype="float32", metadata={})
    return path


def test_weights_of_the_variant_are_accepted(photos: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors", "tiny")
    plan = plan_run(photos, tmp_path / "out", f"model.weights={weights}", check_model=None)
    assert not plan.is_resumed


def test_packaged_weights_are_accepted(photos: Path, tmp_path: Path) -> None:
    plan = plan_run(photos, tmp_path / "out", check_model=None, weights_digest=None)
    assert not plan.is_resumed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param(["model.variant=vit_b"], "of another shape", id="variant"),
        pytest.param(["model.weights={tmp}/in/3.jpg"], "weights as", id="photo"),
        pytest.param(["model.weights={tmp}/absent"], "absent", id="absent"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    photos: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", "tiny")
    settings = [f"model.weights={weights}", *(o.format(tmp=tmp_path) for o in overrides)]
    with pytest.raises(WeightsError, match=message):
        plan_run(photos, tmp_path / "out", *settings, check_model=None)
    assert not (tmp_path / "out").exists()


def test_backend_that_is_not_installed_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: asked.append(name))
    with pytest.raises(ConfigError, match=r"amg_pipeline\[jax\]"):
        plan_run(photos, tmp_path / "out", "model.backend=jax", check_model=None)
    assert asked == ["jax"]
    assert not (tmp_path / "out").exists()
