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
from pathlib import Path
from typing import Any

import keras

from amg_pipeline.sam.model import SAM
from amg_pipeline.sam.weights import save_weights
from amg_pipeline.training.calibration import calibrate_logits
from amg_pipeline.training.scene_cache import SceneCache, render_scenes
from amg_pipeline.training.trainer import SAMTrainer, SceneBatches

SEED = 0
#: Seeds from here on are held out: scenes that no training ever sees.
HELD_OUT_SEED = 1_000_000_000
NUM_SCENES = 6000
NUM_HELD_OUT = 256
BATCH_SIZE = 8
PROMPTS = 16
STEPS_PER_EPOCH = 100
VALIDATION_STEPS = 16
PEAK_LEARNING_RATE = 1e-3
WARM_UP_STEPS = 150


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


def train_tiny(work_dir: Path, *, epochs: int, processes: int = 2) -> Path:
    """Train the packaged model, or go on with a training that was stopped.

    Args:
        work_dir: Holds the rendered scenes, the checkpoint, the log and the result.
        epochs: Epochs of `STEPS_PER_EPOCH` steps; must stay the same when resuming, since the
            learning rate follows it.
        processes: Worker processes that render scenes.

    Returns:
        The path of the weights, half precision safetensors with the reference's names.
    """
    keras.utils.set_random_seed(SEED)
    scenes = render_scenes(work_dir / "scenes", count=NUM_SCENES, seed=SEED, processes=processes)
    held_out = render_scenes(
        work_dir / "held_out", count=NUM_HELD_OUT, seed=HELD_OUT_SEED, processes=processes
    )
    sam = SAM.from_variant("tiny", weights=None)
    trainer = SAMTrainer(sam)
    schedule = WarmUpCosine(PEAK_LEARNING_RATE, WARM_UP_STEPS, epochs * STEPS_PER_EPOCH)
    trainer.compile(
        optimizer=keras.optimizers.AdamW(
            schedule, weight_decay=0.01, global_clipnorm=1.0, use_ema=True, ema_momentum=0.998
        )
    )
    batches = _batches(scenes, sam, steps=STEPS_PER_EPOCH, seed=SEED, augment=True)
    trainer.fit(
        batches,
        validation_data=_batches(
            held_out, sam, steps=VALIDATION_STEPS, seed=HELD_OUT_SEED, augment=False
        ),
        epochs=epochs,
        callbacks=[
            keras.callbacks.BackupAndRestore(str(work_dir / "backup")),
            _ResumeBatches(batches),
            keras.callbacks.CSVLogger(str(work_dir / "log.csv"), append=True),
        ],
        shuffle=False,  # the batches are random already, and repeatable
        verbose=2,
    )
    # The averaged weights are better than the last ones, and what validation will see.
    trainer.optimizer.finalize_variable_values(trainer.trainable_variables)
    validation = _batches(held_out, sam, steps=VALIDATION_STEPS, seed=HELD_OUT_SEED, augment=False)
    metrics = trainer.evaluate(validation, return_dict=True, verbose=0)
    factor = calibrate_logits(trainer, (validation[i] for i in range(len(validation))))
    ignore_mask_prompts(sam)
    weights = work_dir / "tiny.safetensors"
    save_weights(sam, weights, dtype="float16")
    result = {
        "seed": SEED,
        "scenes_version": scenes.meta.scenes_version,
        "epochs": epochs,
        "steps_per_epoch": STEPS_PER_EPOCH,
        "logit_factor": factor,
        **{name: float(value) for name, value in metrics.items()},
    }
    (work_dir / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return weights


def ignore_mask_prompts(sam: SAM) -> None:
    """Make any mask prompt mean the same as none.

    This recipe shows the model no mask prompts. Untrained, their embedding would drown the image's;
    so its last layer gives what stands for "no mask".
    """
    last = sam.prompt_encoder.mask_downscaling[-1]
    last.kernel.assign(keras.ops.zeros_like(last.kernel))
    last.bias.assign(sam.prompt_encoder.no_mask_embed[0])


def _batches(cache: SceneCache, sam: SAM, *, steps: int, seed: int, augment: bool) -> SceneBatches:
    return SceneBatches(
        cache,
        size=sam.image_encoder.img_size,
        batch_size=BATCH_SIZE,
        prompts=PROMPTS,
        steps=steps,
        seed=seed,
        augment=augment,
    )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    path = train_tiny(arguments.work_dir, epochs=arguments.epochs, processes=arguments.processes)
    print(json.dumps({"weights": str(path), "bytes": path.stat().st_size}))


if __name__ == "__main__":
    main()
