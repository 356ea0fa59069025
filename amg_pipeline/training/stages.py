"""One stage of a training: what it does to which model, and how it is taken up after a kill."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from amg_pipeline.sam.model import SAM
from amg_pipeline.sam.presets import Preset
from amg_pipeline.training.batches import SceneBatches, Source, ViewSettings
from amg_pipeline.training.growing import grow
from amg_pipeline.training.optimizing import WarmUpHold, muon
from amg_pipeline.training.reviving import revive_output
from amg_pipeline.training.scene_trainer import SceneTrainer


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a training, with a model and a learning rate of its own.

    Attributes:
        preset: Sizes of the model; where images or patches differ from the last stage's, it grows.
        epochs: Epochs to train.
        cool_down_epochs: Of these, the last ones, in which the learning rate falls to zero.
        peak_learning_rate: Highest learning rate.
        ema_momentum: Of the average of weights that the stage ends with.
        batch_size: Views of a step.
        prompts: Prompts of a view.
        cells: Cells of the embedding grid in which their masks are compared; 0 for all.
        clicks: Clicks of a view whose groups are learnt; 0 for none.
        pixels: Pixels that these are compared with.
        min_area: Masks of a smaller share of the view are no targets.
        photo_share: Share of the views that are made of photographs, if there are any.
        whole_photos: Whether these are parts of whole photographs, rather than of crops.
        revived: An output that starts again, and the one that it starts from; see `revive_output`.
    """

    preset: Preset
    epochs: int
    cool_down_epochs: int
    peak_learning_rate: float
    ema_momentum: float
    batch_size: int
    prompts: int
    cells: int
    clicks: int
    pixels: int
    min_area: float
    photo_share: float
    whole_photos: bool = False
    revived: tuple[int, int] | None = None

    def views(self) -> ViewSettings:
        """Give how the stage's views are drawn."""
        return ViewSettings(
            size=self.preset.img_size,
            label_size=4 * self.preset.grid_size,
            batch_size=self.batch_size,
            prompts=self.prompts,
            cells=self.cells,
            clicks=self.clicks,
            pixels=self.pixels,
            min_area=self.min_area,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Steps that all stages of a training have in common.

    Attributes:
        steps_per_epoch: Steps of an epoch; what a kill costs at most.
        warm_up_steps: Steps in which a stage's learning rate rises.
    """

    steps_per_epoch: int = 100
    warm_up_steps: int = 200


def start_stage(
    stage: Stage, last: tuple[Stage, SceneTrainer] | None, *, seed: int = 0
) -> SceneTrainer:
    """Give the trainer of a stage: the last one's, or one with a model grown from its.

    Args:
        stage: The stage that begins.
        last: The stage before and its trainer; None starts from random weights.
        seed: Of the noise of an output that is revived.

    Raises:
        ValueError: If the stages' presets differ in more than images and patches.
    """
    if last is None:
        return SceneTrainer(SAM.from_preset(stage.preset))
    before, trainer = last
    if before.preset != stage.preset:
        model = SAM.from_preset(stage.preset)
        grow(trainer.sam, model)
        grown = SceneTrainer(model)
        # The head that groups pixels has no size that depends on the resolution.
        for source, target in zip(
            trainer.grouping.seed.variables, grown.grouping.seed.variables, strict=True
        ):
            target.assign(source)
        trainer = grown
    if stage.revived is not None:
        lost, twin = stage.revived
        revive_output(trainer.sam, lost=lost, twin=twin, seed=seed)
    return trainer


def train_stage(
    trainer: SceneTrainer,
    stage: Stage,
    sources: Sequence[Source],
    validation: SceneBatches,
    *,
    name: str,
    seed: int,
    work_dir: Path,
    pace: Pace,
) -> None:
    """Train a stage, go on with it, or take what it left when it was finished before.

    Args:
        trainer: Holds the model, which is changed in place.
        stage: What to do.
        sources: Where scenes are drawn from.
        validation: What is measured after each epoch.
        name: Begins the names of the stage's files.
        seed: Decides everything drawn.
        work_dir: Holds the stage's log, its backup after each epoch, and its weights at the end.
        pace: Steps of epochs and warm-up.
    """
    finished = work_dir / f"{name}.weights.h5"
    schedule = WarmUpHold(
        stage.peak_learning_rate,
        pace.warm_up_steps,
        stage.cool_down_epochs * pace.steps_per_epoch,
        stage.epochs * pace.steps_per_epoch,
    )
    # Prompts never have masks here.
    for layer in trainer.sam.prompt_encoder.mask_downscaling:
        layer.trainable = False
    trainer.compile(
        optimizer=muon(schedule, ema_momentum=stage.ema_momentum),
        jit_compile=True,  # a quarter less time for the same step
    )
    # Weights are saved with the optimizer's; unbuilt, it would refuse them.
    trainer.optimizer.build(trainer.trainable_variables)
    if finished.exists():
        trainer.load_weights(finished)
        return
    batches = SceneBatches(sources, stage.views(), steps=pace.steps_per_epoch, seed=seed)
    backup = work_dir / f"backup_{name}"
    trainer.fit(
        batches,
        validation_data=validation,
        epochs=stage.epochs,
        callbacks=[
            keras.callbacks.SwapEMAWeights(),
            # Kept until the weights are there: a kill in between must not cost the stage.
            keras.callbacks.BackupAndRestore(str(backup), delete_checkpoint=False),
            ResumeBatches(batches),
            keras.callbacks.CSVLogger(str(work_dir / f"{name}.csv"), append=True),
        ],
        shuffle=False,  # the batches are random already, and repeatable
        verbose=2,
    )
    # The averaged weights are better than the last ones.
    trainer.optimizer.finalize_variable_values(trainer.trainable_variables)
    trainer.save_weights(finished)
    shutil.rmtree(backup)


class ResumeBatches(keras.callbacks.Callback):
    """Starts the batches at the epoch that a resumed `fit` starts at."""

    def __init__(self, batches: SceneBatches) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Tell the batches which epoch begins."""
        self._batches.epoch = epoch
