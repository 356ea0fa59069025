from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from amg_pipeline.training import stages
from amg_pipeline.training.batches import SceneBatches, Source, ViewSettings
from amg_pipeline.training.scene_cache import SceneCache, SceneCacheMeta
from amg_pipeline.training.scene_trainer import SceneTrainer
from amg_pipeline.training.stages import Pace, Stage, start_stage, train_stage
from tests.sam.small_sam import as_arrays
from tests.training.small_preset import SMALL

# Keras passes TensorFlow variables to np.array, and TensorFlow does not know NumPy 2's `copy` yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

STAGE = Stage(
    preset=SMALL,
    epochs=1,
    cool_down_epochs=0,
    peak_learning_rate=1e-2,
    ema_momentum=0.5,
    batch_size=1,
    prompts=2,
    cells=2,
    clicks=0,
    pixels=0,
    min_area=0.0,
    photo_share=0.5,
)


def scenes() -> list[Source]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    labels = np.ones((2, 3, 32, 32), np.uint8)
    labels[:, 0, :16] = 2
    sizes = np.full((2, 2), 32, np.int32)
    return [Source(SceneCache(SceneCacheMeta(count=2, size=32, seed=0), images, labels, sizes))]


def test_views_fit_the_stages_model() -> None:
    assert replace(STAGE, min_area=0.1).views() == ViewSettings(
        size=32, label_size=8, batch_size=1, prompts=2, cells=2, min_area=0.1
    )


def test_a_stage_of_the_same_sizes_goes_on_with_the_same_model() -> None:
    trainer = start_stage(STAGE, None)
    assert start_stage(replace(STAGE, epochs=3), (STAGE, trainer)) is trainer


def test_a_stage_may_revive_an_output() -> None:
    trainer = start_stage(STAGE, None)
    start_stage(replace(STAGE, revived=(2, 3)), (STAGE, trainer), seed=5)
    tokens = as_arrays(trainer.sam.mask_decoder.mask_tokens)
    assert 0 < np.abs(tokens[2] - tokens[3]).mean() < 0.3 * np.abs(tokens[1] - tokens[3]).mean()


def test_a_stage_of_other_sizes_starts_from_what_was_learned() -> None:
    before = start_stage(STAGE, None)
    after = start_stage(replace(STAGE, preset=replace(SMALL, patch_size=8)), (STAGE, before))
    assert after is not before
    learned, grown = (
        as_arrays(trainer.sam.image_encoder.blocks[0].mlp.lin1.kernel)
        for trainer in (before, after)
    )
    np.testing.assert_array_equal(grown, learned)


def test_a_stage_of_a_wider_encoder_answers_as_the_one_before() -> None:
    before = start_stage(STAGE, None)
    wide = replace(SMALL, embed_dim=2 * SMALL.embed_dim, num_heads=2 * SMALL.num_heads)
    after = start_stage(replace(STAGE, preset=wide), (STAGE, before))
    image = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3)).astype(np.float32)
    answers = [
        as_arrays(trainer.sam.image_encoder(trainer.sam.preprocess(image)))
        for trainer in (before, after)
    ]
    np.testing.assert_allclose(*answers, rtol=1e-3, atol=1e-4)
    # Its input changes at the same time.
    start_stage(replace(STAGE, preset=replace(wide, patch_size=8)), (STAGE, before))


@pytest.mark.training
def test_what_sees_mask_prompts_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_model = keras.Model.compile
    monkeypatch.setattr(
        SceneTrainer,
        "compile",
        lambda self, optimizer, **_: compile_model(self, optimizer, run_eagerly=True),
    )
    monkeypatch.setattr(
        stages, "muon", lambda rate, **more: keras.optimizers.SGD(rate, use_ema=True, **more)
    )
    stage = replace(STAGE, clicks=4, pixels=16)
    trainer = start_stage(stage, None)
    before = [as_arrays(variable) for variable in trainer.variables]
    validation = SceneBatches(scenes(), stage.views(), steps=1, seed=1)
    train_stage(
        trainer,
        stage,
        scenes(),
        validation,
        name="a",
        seed=0,
        work_dir=tmp_path,
        pace=Pace(steps_per_epoch=2, warm_up_steps=1),
    )
    same = {
        id(variable)
        for variable, values in zip(trainer.variables, before, strict=True)
        if (as_arrays(variable) == values).all()
    }
    masks = [v for v in trainer.sam.prompt_encoder.variables if "mask_downscaling" in v.path]
    assert masks
    assert all(id(variable) in same for variable in masks)
    learning = [*trainer.sam.image_encoder.trainable_variables, trainer.sam.mask_decoder.iou_token]
    assert not any(id(variable) in same for variable in learning)
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", "a.weights.h5"}
