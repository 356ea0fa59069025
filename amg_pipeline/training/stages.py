"""One stage of a training: what it does to which model, and how it is taken up after a kill."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import keras

from amg_pipeline.sam.model import SAM
from amg_pipeline.sam.presets import Preset
from amg_pipeline.training.batches import SceneBatches, Source, ViewSettings
from amg_pipeline.training.checkpoint import fit_from_checkpoint
from amg_pipeline.training.growing import grow
from amg_pipeline.training.optimizing import WarmUpHold, muon
from amg_pipeline.training.reviving import revive_output
from amg_pipeline.training.scene_trainer import SceneTrainer
from amg_pipeline.training.widening import widen


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
        pasted: Share of the whole photographs that things of others are pasted into.
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
    pasted: float = 0.0

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

    Its input changes first, then its encoder becomes wider.

    Args:
        stage: The stage that begins.
        last: The stage before and its trainer; None starts from random weights.
        seed: Of what is drawn when the encoder becomes wider or an output is revived.

    Raises:
        ValueError: If the stages' presets differ in more than images, patches and the width of
            the image encoder.
    """
    if last is None:
        return SceneTrainer(SAM.from_preset(stage.preset))
    before, trainer = last
    if before.preset != stage.preset:
        grown = SceneTrainer(_carried_over(trainer.sam, before.preset, stage.preset, seed))
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


def _carried_over(sam: SAM, before: Preset, after: Preset, seed: int) -> SAM:
    narrow = replace(after, embed_dim=before.embed_dim, num_heads=before.num_heads)
    for preset, carry_over in ((narrow, grow), (after, partial(widen, seed=seed))):
        if preset != before:
            model = SAM.from_preset(preset)
            carry_over(sam, model)
            sam, before = model, preset
    return sam


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
        work_dir: Holds the stage's log, its checkpoint after each epoch, and its weights at the
            end.
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
    checkpoint = work_dir / f"{name}.checkpoint.npz"
    fit_from_checkpoint(
        trainer,
        SceneBatches(sources, stage.views(), steps=pace.steps_per_epoch, seed=seed),
        checkpoint,
        epochs=stage.epochs,
        every=pace.steps_per_epoch,
        settings=repr((stage, seed, pace)),
        callbacks=[
            keras.callbacks.SwapEMAWeights(),
            keras.callbacks.CSVLogger(str(work_dir / f"{name}.csv"), append=True),
        ],
        validation_data=validation,
        verbose=2,
    )
    # The averaged weights are better than the last ones.
    trainer.optimizer.finalize_variable_values(trainer.trainable_variables)
    partial_weights = work_dir / f"partial_{finished.name}"
    trainer.save_weights(partial_weights)
    partial_weights.replace(finished)
    checkpoint.unlink()
