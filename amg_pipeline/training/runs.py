"""One training from its settings to weights: what `amg train` does.

The output folder holds `checkpoint.npz`, after each epoch `log.csv` and `curves.svg`, and at the
end `weights.safetensors`, readable by `SAM.from_variant`, and `result.json`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

import keras

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.model import SAM
from amg_pipeline.sam.weights import save_weights
from amg_pipeline.training.checkpoint import Checkpoint, fit_from_checkpoint
from amg_pipeline.training.curves import draw_curves
from amg_pipeline.training.devices import share_batches_out
from amg_pipeline.training.embedding_cache import EmbeddingCache, embedding_bytes
from amg_pipeline.training.fine_tuning import (
    LayerwiseAdamW,
    ProgressiveUnfreezing,
    freeze_encoder,
    layer_rates,
)
from amg_pipeline.training.labelled_views import LabelledViews, ViewSource
from amg_pipeline.training.lora import add_adapters, count_parameters, merge_adapters
from amg_pipeline.training.optimizing import WarmUpHold
from amg_pipeline.training.prompted_batches import PromptedBatches
from amg_pipeline.training.scenes import HELD_OUT_SEED
from amg_pipeline.training.settings import SourceSettings, TrainConfig, settings_text
from amg_pipeline.training.sources.formats import read_source
from amg_pipeline.training.sources.labelled_image import LabelledImage
from amg_pipeline.training.trainer import SAMTrainer
from amg_pipeline.training.views import Augmentation

CHECKPOINT = "checkpoint.npz"
WEIGHTS = "weights.safetensors"
LOG = "log.csv"
CURVES = "curves.svg"
RESULT = "result.json"
#: A line of progress is due when so much time has gone by.
_INTERVAL_SECONDS = 30.0

MakeModel = Callable[[TrainConfig], SAM]


def make_model(config: TrainConfig) -> SAM:
    """Build the model that the training starts from."""
    model = config.model
    if model.weights is None and model.variant != "tiny":
        raise ConfigError(
            f"model.weights must name a checkpoint of {model.variant}; only tiny is packaged. "
            "Received: none."
        )
    return SAM.from_variant(
        model.variant, weights=model.weights or "default", dtype=model.precision
    )


def run_training(
    config: TrainConfig, stream: TextIO, *, build: MakeModel = make_model
) -> dict[str, Any]:
    """Train, or go on with a training that was killed.

    Args:
        config: The settings.
        stream: Where progress is shown.
        build: Makes the model.

    Returns:
        What was measured in the last epoch, and how much was trained.

    Raises:
        ConfigError: If the data are not as the settings say, an epoch had no mask to learn, weights
            became infinite, or the output is of another training.
    """
    if keras.backend.backend() != config.model.backend:
        raise ConfigError(
            f"model.backend must be the one that Keras runs on here, {keras.backend.backend()}. "
            f"Received: {config.model.backend}; start a new process."
        )
    output = _make_folder(config.output)
    if config.optimization.data_parallel:
        share_batches_out(config.optimization.batch_size)
    keras.utils.set_random_seed(config.optimization.seed)
    train = _read(config.data.train, scene_seed=0)
    valid = _read(config.data.valid, scene_seed=HELD_OUT_SEED)
    sam = build(config)
    callbacks: list[Any] = _freeze(sam, config)
    batches = _batches(sam, train, config)
    validation = _validation(sam, valid, config) if valid else None
    trainer = _compiled(sam, config, config.optimization.epochs * batches.steps_per_epoch)
    trained = count_parameters(trainer.trainable_variables)
    callbacks += [_RefuseNothing(), _Log(output)]
    callbacks += [_Progress(stream, batches, config.optimization.epochs)]
    if config.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(str(output / "tensorboard")))
    checkpoint = fit_from_checkpoint(
        trainer,
        batches,
        output / CHECKPOINT,
        epochs=config.optimization.epochs,
        every=config.checkpoint_steps,
        settings=_identity(config, train),
        callbacks=callbacks,
        validation_data=validation,
        verbose=0,
    )
    _write_log(output, checkpoint.history)
    save_weights(merge_adapters(sam), output / WEIGHTS)
    share = trained / count_parameters(sam.variables)
    result = {**checkpoint.history[-1], "trained_share": round(share, 4)}
    (output / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return {**result, "weights": str(output / WEIGHTS)}


def _make_folder(name: str) -> Path:
    output = Path(name).expanduser()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ConfigError(
            f"output must be a folder. Received: {name}, which is a file. Name another one."
        ) from error
    return output


def _read(sources: Sequence[SourceSettings], *, scene_seed: int) -> list[LabelledImage]:
    images: list[LabelledImage] = []
    for source in sources:
        options = {} if source.images is None else {"images": source.images}
        place = str(source.path)  # YAML takes a folder named 2018 for a number
        if source.format != "synthetic":
            images.extend(read_source(source.format, place, **options))
        elif place.isdigit():
            images.extend(read_source(source.format, int(place), seed=scene_seed, **options))
        else:
            raise ConfigError(f"path of synthetic data must be a number. Received: {place!r}")
    return images


def _freeze(sam: SAM, config: TrainConfig) -> list[Any]:
    """Freeze what is not trained; give the callbacks that change it later."""
    freezing = config.freezing
    if freezing.lora_rank:
        add_adapters(sam, rank=freezing.lora_rank, where=freezing.lora_where)
    elif isinstance(freezing.trained_blocks, dict):
        unfreezing = ProgressiveUnfreezing(freezing.trained_blocks)
        unfreezing.prepare_model(sam, 0)
        return [unfreezing]
    else:
        freeze_encoder(sam, trained_blocks=freezing.trained_blocks)
    return []


def _batches(sam: SAM, images: Sequence[LabelledImage], config: TrainConfig) -> PromptedBatches:
    drawn = config.augmentation
    augmentation = Augmentation(**drawn.model_dump()) if drawn is not None else None
    views = LabelledViews(images, sam, augmentation=augmentation)
    return PromptedBatches(
        _embedded(sam, views, config),
        batch_size=config.optimization.batch_size,
        prompts=config.prompts.per_image,
        box_share=config.prompts.box_share,
        min_area=config.prompts.min_area,
        steps=config.optimization.steps_per_epoch,
        rounds=config.prompts.rounds,
        seed=config.optimization.seed,
        fixed=False,
    )


def _embedded(sam: SAM, views: LabelledViews, config: TrainConfig) -> ViewSource:
    """Embed the views once if the encoder stays as it is, as many as memory is meant for."""
    freezing = config.freezing
    if not freezing.is_encoder_fixed:
        return views
    fitting = freezing.cached_bytes // (len(views) * embedding_bytes(sam))
    count = min(freezing.cached_views, fitting)
    if not count:
        return views
    return EmbeddingCache(sam, views, views_per_image=count, seed=config.optimization.seed)


def _validation(sam: SAM, images: Sequence[LabelledImage], config: TrainConfig) -> PromptedBatches:
    views = LabelledViews(images, sam, augmentation=None)
    return PromptedBatches(
        _embedded(sam, views, config),
        batch_size=config.optimization.batch_size,
        prompts=config.prompts.per_image,
        box_share=0.0,
        min_area=config.prompts.min_area,
        rounds=config.prompts.rounds,
        seed=config.optimization.seed,
        fixed=True,
    )


def _compiled(sam: SAM, config: TrainConfig, steps: int) -> SAMTrainer:
    wanted = config.optimization
    trainer = SAMTrainer(
        sam, rounds=config.prompts.rounds, mask_prompts=config.prompts.mask_prompts
    )
    schedule = WarmUpHold(
        wanted.learning_rate, wanted.warm_up_steps, round(wanted.cool_down * steps), steps
    )
    trainer.compile(
        optimizer=LayerwiseAdamW(
            schedule,
            rates=layer_rates(sam, wanted.layer_decay) if wanted.layer_decay < 1.0 else None,
            decay=wanted.weight_decay,
            global_clipnorm=wanted.clip_norm or None,
        ),
        jit_compile=wanted.xla,
    )
    return trainer


def _identity(config: TrainConfig, images: Sequence[LabelledImage]) -> str:
    """Name what the weights of every step depend on."""
    names = json.dumps([(image.name, image.height, image.width) for image in images])
    digest = hashlib.sha256(names.encode()).hexdigest()
    return settings_text({**config.dependencies(), "images": digest})


def _write_log(output: Path, history: Sequence[dict[str, float]]) -> None:
    """Write the log and its curves; whole, so that a resumed training's has no gap."""
    names = sorted({name for row in history for name in row})
    text = io.StringIO()
    writer = csv.DictWriter(text, ["epoch", *names], lineterminator="\n")
    writer.writeheader()
    for epoch, row in enumerate(history, start=1):
        writer.writerow({"epoch": epoch, **row})
    (output / LOG).write_text(text.getvalue(), encoding="utf-8")
    (output / CURVES).write_text(draw_curves(history), encoding="utf-8")


class _RefuseNothing(keras.callbacks.Callback):
    """Ends a training that learns from no mask: what is left is weight decay."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs and logs["loss"] == 0.0:
            raise ConfigError(
                "Training needs images with masks of at least prompts.min_area. Received: none in "
                f"epoch {epoch + 1}."
            )


class _Log(keras.callbacks.Callback):
    """Writes the log after each epoch."""

    def __init__(self, output: Path) -> None:
        super().__init__()
        self._output = output
        self._checkpoint: Checkpoint | None = None

    def follow(self, checkpoint: Checkpoint) -> None:
        """Take note of where the history is."""
        self._checkpoint = checkpoint

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        if self._checkpoint is not None:
            _write_log(self._output, self._checkpoint.history)


class _Progress(keras.callbacks.Callback):
    """Says how far the training is: after each epoch, and every half minute."""

    def __init__(self, stream: TextIO, batches: PromptedBatches, epochs: int) -> None:
        super().__init__()
        self._stream = stream
        self._batches = batches
        self._epochs = epochs
        self._last = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        is_due = time.monotonic() - self._last >= _INTERVAL_SECONDS
        if is_due or self._stream.isatty():
            done = self._batches.skipped + batch + 1
            self._say(self._batches.epoch, f"step {done}/{self._batches.steps_per_epoch}", logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._say(epoch, "done", logs, end="\n")

    def _say(self, epoch: int, what: str, logs: dict[str, Any] | None, *, end: str = "") -> None:
        self._last = time.monotonic()
        shown = ", ".join(f"{name} {float(value):.4f}" for name, value in (logs or {}).items())
        # On a terminal, a line takes the place of the last one.
        start, end = ("\r\x1b[K", end) if self._stream.isatty() else ("", "\n")
        line = f"{start}epoch {epoch + 1}/{self._epochs}, {what}: {shown}"
        print(line, end=end, file=self._stream, flush=True)
