"""Trains the packaged model: `python -m amg_pipeline.training.tiny_recipe WORK_DIR`.

Renders scenes, trains `tiny` on them, sharpens its logits and writes `WORK_DIR/tiny.safetensors`
and, with what was measured on held-out scenes, `WORK_DIR/result.json`.
Killed at any moment, the same command goes on from the last finished epoch. Everything drawn
depends on `SEED` alone.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras

from amg_pipeline.sam.model import SAM
from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights import save_weights
from amg_pipeline.training.calibration import calibrate_logits
from amg_pipeline.training.growing import grow
from amg_pipeline.training.scene_cache import SceneCache, render_scenes
from amg_pipeline.training.trainer import SAMTrainer, SceneBatches

SEED = 0
#: Seeds from here on are held out: scenes that no training ever sees.
HELD_OUT_SEED = 1_000_000_000
NUM_SCENES = 6000
NUM_HELD_OUT = 256
BATCH_SIZE = 8
VALIDATION_PROMPTS = 16
STEPS_PER_EPOCH = 100
VALIDATION_STEPS = 16
WARM_UP_STEPS = 150


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of the training, with a learning rate that rises and falls by itself.

    Attributes:
        epochs: Epochs of `STEPS_PER_EPOCH` steps.
        schedule_epochs: Epochs after which the learning rate would reach zero; more than `epochs`
            where a further stage makes the slow tail worthless.
        peak_learning_rate: Highest learning rate.
        min_area: Masks of a smaller share of the scene are no targets.
        img_size: Side of the model's input in this stage, in pixels.
        patch_size: Side of its patches; when it changes, the model grows.
        prompts: Prompts of a scene.
        ema_momentum: Of the average of weights that the stage ends with.
    """

    epochs: int
    schedule_epochs: int
    peak_learning_rate: float
    min_area: float
    img_size: int
    patch_size: int
    prompts: int
    ema_momentum: float


_COARSE = Stage(
    epochs=34,
    schedule_epochs=40,
    peak_learning_rate=1e-3,
    min_area=0.0,
    img_size=256,
    patch_size=16,
    prompts=16,
    ema_momentum=0.998,
)
STAGES = (
    _COARSE,
    # The low-res grid has 64 x 64 cells: what is smaller than a dozen of them teaches noise.
    replace(_COARSE, epochs=22, schedule_epochs=30, peak_learning_rate=8e-4, min_area=0.004),
    # The model that ships: smaller patches, each prompt three times as costly.
    Stage(
        epochs=28,
        schedule_epochs=32,
        peak_learning_rate=1e-3,
        min_area=0.002,
        img_size=192,
        patch_size=8,
        prompts=8,
        ema_momentum=0.99,
    ),
)


class WarmUpCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up to the peak, then half a cosine to zero.

    Args:
        peak: Highest learning rate.
        warm_up_steps: Steps until the peak.
        total_steps: Steps until zero.
    """

    def __init__(self, peak: float, warm_up_steps: int, total_steps: int) -> None:
        self.peak = peak
        self.warm_up_steps = warm_up_steps
        self.total_steps = total_steps

    def __call__(self, step: Any) -> Any:
        """Give the learning rate of a step, counted from 0."""
        step = keras.ops.cast(step, "float32")
        rise = (step + 1.0) / self.warm_up_steps
        done = (step - self.warm_up_steps) / (self.total_steps - self.warm_up_steps)
        fall = 0.5 * (1.0 + keras.ops.cos(math.pi * keras.ops.clip(done, 0.0, 1.0)))
        return self.peak * keras.ops.minimum(keras.ops.minimum(rise, 1.0), fall)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments, for saving."""
        return {
            "peak": self.peak,
            "warm_up_steps": self.warm_up_steps,
            "total_steps": self.total_steps,
        }


class _ResumeBatches(keras.callbacks.Callback):
    """Start the batches at the epoch that a resumed `fit` starts at."""

    def __init__(self, batches: SceneBatches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Tell the batches which epoch begins."""
        self._batches.epoch = epoch


def train_tiny(work_dir: Path, *, stages: Sequence[Stage] = STAGES, processes: int = 2) -> Path:
    """Train the packaged model, or go on with a training that was stopped.

    Args:
        work_dir: Holds the rendered scenes, the checkpoints, the logs and the result.
        stages: What to do one after the other; must stay the same when resuming.
        processes: Worker processes that render scenes.

    Returns:
        The path of the weights, half precision safetensors with the reference's names.
    """
    keras.utils.set_random_seed(SEED)
    scenes = render_scenes(work_dir / "scenes", count=NUM_SCENES, seed=SEED, processes=processes)
    held_out = render_scenes(
        work_dir / "held_out", count=NUM_HELD_OUT, seed=HELD_OUT_SEED, processes=processes
    )
    trainer = SAMTrainer(_model_of(stages[0]))
    for number, stage in enumerate(stages, start=1):
        trainer = _at_resolution_of(stage, trainer)
        validation = _held_out_batches(held_out, stage)
        _train_stage(trainer, stage, number, scenes, validation, work_dir)
    metrics = trainer.evaluate(validation, return_dict=True, verbose=0)
    factor = calibrate_logits(trainer, (validation[i] for i in range(len(validation))))
    ignore_mask_prompts(trainer.sam)
    weights = work_dir / "tiny.safetensors"
    save_weights(trainer.sam, weights, dtype="float16")
    result = {
        "seed": SEED,
        "scenes_version": scenes.meta.scenes_version,
        "stages": [asdict(stage) for stage in stages],
        "steps_per_epoch": STEPS_PER_EPOCH,
        "logit_factor": factor,
        **{name: float(value) for name, value in metrics.items()},
    }
    (work_dir / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return weights


def _model_of(stage: Stage) -> SAM:
    sizes = replace(PRESETS["tiny"], img_size=stage.img_size, patch_size=stage.patch_size)
    return SAM.from_preset(sizes)


def _at_resolution_of(stage: Stage, trainer: SAMTrainer) -> SAMTrainer:
    """Give the trainer of a stage: the last one's, or one with a model grown from its."""
    encoder = trainer.sam.image_encoder
    if (encoder.img_size, encoder.patch_size) == (stage.img_size, stage.patch_size):
        return trainer
    grown = SAMTrainer(_model_of(stage))
    grow(trainer.sam, grown.sam)
    return grown


def _train_stage(
    trainer: SAMTrainer,
    stage: Stage,
    number: int,
    scenes: SceneCache,
    validation: SceneBatches,
    work_dir: Path,
) -> None:
    """Train one stage, or take what it left when it was finished before."""
    finished = work_dir / f"stage{number}.weights.h5"
    schedule = WarmUpCosine(
        stage.peak_learning_rate, WARM_UP_STEPS, stage.schedule_epochs * STEPS_PER_EPOCH
    )
    trainer.compile(
        optimizer=keras.optimizers.AdamW(
            schedule,
            weight_decay=0.01,
            global_clipnorm=1.0,
            use_ema=True,
            ema_momentum=stage.ema_momentum,
        )
    )
    if finished.exists():
        trainer.sam.load_weights(finished)
        return
    batches = SceneBatches(
        scenes,
        size=stage.img_size,
        batch_size=BATCH_SIZE,
        prompts=stage.prompts,
        steps=STEPS_PER_EPOCH,
        # Each stage draws its own batches.
        seed=SEED + number - 1,
        min_area=stage.min_area,
    )
    trainer.fit(
        batches,
        validation_data=validation,
        epochs=stage.epochs,
        callbacks=[
            keras.callbacks.BackupAndRestore(str(work_dir / f"backup{number}")),
            _ResumeBatches(batches),
            keras.callbacks.CSVLogger(str(work_dir / f"log{number}.csv"), append=True),
        ],
        shuffle=False,  # the batches are random already, and repeatable
        verbose=2,
    )
    # The averaged weights are better than the last ones.
    trainer.optimizer.finalize_variable_values(trainer.trainable_variables)
    trainer.sam.save_weights(finished)


def _held_out_batches(held_out: SceneCache, stage: Stage) -> SceneBatches:
    return SceneBatches(
        held_out,
        size=stage.img_size,
        batch_size=BATCH_SIZE,
        prompts=VALIDATION_PROMPTS,
        steps=VALIDATION_STEPS,
        seed=HELD_OUT_SEED,
        augment=False,
        min_area=stage.min_area,
    )


def ignore_mask_prompts(sam: SAM) -> None:
    """Make any mask prompt mean the same as none.

    This recipe shows the model no mask prompts. Untrained, their embedding would drown the image's;
    so its last layer gives what stands for "no mask".
    """
    last = sam.prompt_encoder.mask_downscaling[-1]
    last.kernel.assign(keras.ops.zeros_like(last.kernel))
    last.bias.assign(sam.prompt_encoder.no_mask_embed[0])


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    path = train_tiny(arguments.work_dir, processes=arguments.processes)
    print(json.dumps({"weights": str(path), "bytes": path.stat().st_size}))


if __name__ == "__main__":
    main()
