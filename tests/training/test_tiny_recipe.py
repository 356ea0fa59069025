from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from amg_pipeline.sam import SAM
from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.training import tiny_recipe
from amg_pipeline.training.tiny_recipe import (
    STAGES,
    STEPS_PER_EPOCH,
    Stage,
    WarmUpCosine,
    ignore_mask_prompts,
    main,
    train_tiny,
)
from amg_pipeline.training.trainer import SAMTrainer
from tests.sam.small_sam import LOW_RES, as_arrays, make_sam, random_image

# Keras passes TensorFlow variables to np.array, and TensorFlow does not know NumPy 2's `copy` yet.
# And Keras warns of the mask prompts' convolutions, which this training never uses.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning"),
]

COARSE = Stage(
    epochs=1,
    schedule_epochs=3,
    peak_learning_rate=1e-3,
    min_area=0.0,
    img_size=64,
    patch_size=16,
    prompts=2,
    ema_momentum=0.9,
)
#: The second one has smaller patches than the first.
TWO_STAGES = (
    COARSE,
    replace(COARSE, epochs=2, schedule_epochs=2, min_area=0.01, patch_size=8),
)


class Killed(BaseException):
    """Stands for a signal: nothing in the package may catch it."""


@pytest.fixture
def small_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe with a model, scenes and epochs of the smallest size."""
    small = replace(
        PRESETS["tiny"],
        img_size=64,
        patch_size=8,
        embed_dim=8,
        depth=1,
        num_heads=1,
        global_attn_indexes=(0,),
        out_chans=16,
        mask_in_chans=4,
        mlp_dim=8,
        iou_head_hidden_dim=8,
    )
    monkeypatch.setitem(PRESETS, "tiny", small)
    for name, value in {
        "NUM_SCENES": 4,
        "NUM_HELD_OUT": 2,
        "BATCH_SIZE": 2,
        "VALIDATION_PROMPTS": 2,
        "STEPS_PER_EPOCH": 1,
        "VALIDATION_STEPS": 1,
        "WARM_UP_STEPS": 1,
    }.items():
        monkeypatch.setattr(tiny_recipe, name, value)
    # Tracing takes far longer than the few steps.
    compile_model = keras.Model.compile
    monkeypatch.setattr(
        SAMTrainer, "compile", lambda self, **more: compile_model(self, run_eagerly=True, **more)
    )
    render = tiny_recipe.render_scenes
    monkeypatch.setattr(
        tiny_recipe, "render_scenes", lambda folder, **more: render(folder, **more, size=64)
    )


def kill_after_epoch(monkeypatch: pytest.MonkeyPatch, *, stage: int, epoch: int) -> None:
    """Stop `fit` at the start of an epoch, when the one before has been backed up."""

    class Resume(tiny_recipe._ResumeBatches):  # type: ignore[misc]
        def on_epoch_begin(self, at: int, logs: Any = None) -> None:
            super().on_epoch_begin(at, logs)
            if at == epoch and self._batches._seed == tiny_recipe.SEED + stage - 1:
                raise Killed

    monkeypatch.setattr(tiny_recipe, "_ResumeBatches", Resume)


@pytest.mark.slow
# A killed `fit` leaves its log open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("small_recipe")
def test_a_killed_training_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_tiny(tmp_path / "whole", stages=TWO_STAGES, processes=1)
    with monkeypatch.context() as patch:
        kill_after_epoch(patch, stage=2, epoch=1)
        with pytest.raises(Killed):
            train_tiny(tmp_path / "killed", stages=TWO_STAGES, processes=1)
    assert not (tmp_path / "killed" / "tiny.safetensors").exists()
    assert (tmp_path / "killed" / "stage1.weights.h5").exists()
    resumed = train_tiny(tmp_path / "killed", stages=TWO_STAGES, processes=1)
    assert resumed.read_bytes() == whole.read_bytes()

    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["logit_factor"] >= 1.0
    assert result["stages"] == [asdict(stage) for stage in TWO_STAGES]
    assert {"loss", "best_iou", "top_iou", "score_error"} <= set(result)
    loaded = SAM.from_variant("tiny", weights=str(whole))
    assert all(np.isfinite(as_arrays(variable)).all() for variable in loaded.variables)


@pytest.mark.usefixtures("small_recipe")
def test_the_command_trains_into_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "work"
    received: list[Any] = []

    def train(work_dir: Path, *, processes: int) -> Path:
        received.append((work_dir, work_dir.is_dir(), processes))
        path = work_dir / "tiny.safetensors"
        path.write_bytes(b"12345")
        return path

    monkeypatch.setattr(tiny_recipe, "train_tiny", train)
    monkeypatch.setattr("sys.argv", ["tiny_recipe", str(folder), "--processes", "3"])
    main()
    assert received == [(folder, True, 3)]
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"weights": str(folder / "tiny.safetensors"), "bytes": 5}


def test_learning_rate_rises_to_the_peak_and_falls_to_zero() -> None:
    schedule = WarmUpCosine(0.5, warm_up_steps=10, total_steps=110)
    rates = [float(schedule(ops.convert_to_tensor(step))) for step in range(120)]
    np.testing.assert_allclose(rates[:10], 0.05 * np.arange(1, 11), rtol=1e-5)
    assert rates[60] == pytest.approx(0.25)
    assert (np.diff(rates[10:111]) <= 0).all()
    assert rates[110] == rates[119] == pytest.approx(0.0, abs=1e-7)
    again = WarmUpCosine(**schedule.get_config())
    assert float(again(33)) == pytest.approx(rates[33])


def test_stages_end_within_their_schedules_and_after_the_warm_up() -> None:
    for stage in STAGES:
        assert 0 < stage.epochs <= stage.schedule_epochs
        assert stage.epochs * STEPS_PER_EPOCH > tiny_recipe.WARM_UP_STEPS


def test_ignored_mask_prompts_mean_no_mask() -> None:
    sam = make_sam()
    image = random_image(40, 64)
    masks = np.random.default_rng(0).normal(0, 4, (1, 1, LOW_RES, LOW_RES))
    call = {"image": image, "points": ([[[20, 20]]], [[1]])}
    before = as_arrays(sam({**call, "masks": masks}))["low_res_logits"]
    ignore_mask_prompts(sam)
    without = as_arrays(sam(call))["low_res_logits"]
    np.testing.assert_allclose(
        as_arrays(sam({**call, "masks": masks}))["low_res_logits"], without, atol=1e-5
    )
    assert np.abs(before - without).max() > 0.1
