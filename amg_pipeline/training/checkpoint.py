"""Takes a training up at the step where it was: weights, optimizer, data order and all.

A checkpoint is one `.npz` file without pickles. It is written beside its place and moved there, so
that a kill leaves either the last one or the new one.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError

_POSITION = "position"


class Batches(Protocol):
    """Batches whose content depends on their place in the training, as `PromptedBatches`."""

    epoch: int
    skipped: int

    def __len__(self) -> int:
        """Count the batches of the epoch, but for those that are skipped."""
        ...


def fit_from_checkpoint(
    trainer: Any,
    batches: Any,
    path: str | Path,
    *,
    epochs: int,
    every: int = 100,
    settings: str = "",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **options: Any,
) -> Checkpoint:
    """Fit, going on where an earlier call with the same arguments was killed.

    Args:
        trainer: A compiled `SAMTrainer` with the weights that the training starts from.
        batches: What is trained on.
        path: The checkpoint's file.
        epochs: Epochs of the whole training.
        every: Steps between checkpoints; there is one after each epoch, too.
        settings: What the training depends on; a checkpoint with other settings is refused.
        callbacks: Further ones; they see a resumed epoch as two.
        **options: Further arguments of `fit`.

    Returns:
        The checkpoint of the end, with the whole training's history.

    Raises:
        ConfigError: If the checkpoint is of another training, or damaged; or if weights become
            infinite, which no checkpoint takes.
    """
    checkpoint = Checkpoint(path, batches, every=every, settings=settings)
    for callback in callbacks:
        # What was trainable when the checkpoint was written must be so before it is restored.
        if hasattr(callback, "prepare"):
            callback.prepare(trainer, checkpoint.trained_epoch())
        if hasattr(callback, "follow"):
            callback.follow(checkpoint)
    callbacks = [checkpoint, *callbacks]
    epoch = checkpoint.restore(trainer)
    fit = {"callbacks": callbacks, "shuffle": False, **options}
    if batches.skipped and epoch < epochs:
        trainer.fit(batches, initial_epoch=epoch, epochs=epoch + 1, **fit)
        epoch += 1
        batches.skipped = 0
    if epoch < epochs:
        trainer.fit(batches, initial_epoch=epoch, epochs=epochs, **fit)
    return checkpoint


class Checkpoint(keras.callbacks.Callback):
    """Writes checkpoints while a model is fitted, and restores the last one.

    Args:
        path: The file.
        batches: What is trained on.
        every: Steps between checkpoints.
        settings: What the training depends on.
    """

    def __init__(
        self, path: str | Path, batches: Batches, *, every: int, settings: str = ""
    ) -> None:
        super().__init__()
        self._path = Path(path)
        self._batches = batches
        self._every = every
        self._settings = settings
        self._epoch = 0
        #: What was measured in the epochs that are done, those before a kill included.
        self.history: list[dict[str, float]] = []
        self._metrics: list[Any] | None = None

    def trained_epoch(self) -> int:
        """Give the epoch whose variables the optimizer had; 0 if there is no checkpoint."""
        stored = self._read()
        if stored is None:
            return 0
        epoch, step = stored[1]["epoch"], stored[1]["step"]
        # Between two epochs, the optimizer is still that of the former one.
        return int(epoch if step else max(epoch - 1, 0))

    def restore(self, trainer: Any) -> int:
        """Give the trainer and the batches the state of the checkpoint, if there is one.

        Returns:
            The epoch to go on with; in which `batches.skipped` steps are done.
        """
        stored = self._read()
        if stored is None:
            return 0
        arrays, position = stored
        trainer.follow_trainable()
        trainer.optimizer.build(trainer.trainable_variables)
        variables = _variables(trainer)
        for name, variable in variables.items():
            if name not in arrays or arrays[name].shape != tuple(variable.shape):
                raise ConfigError(
                    f"Expected the checkpoint of this training in {self._path}. Received: another "
                    f"one, whose {name} does not fit. Name another file, or remove it."
                )
            variable.assign(arrays[name])
        count = sum(name.startswith("metric/") for name in arrays)
        self._metrics = [arrays[f"metric/{i}"] for i in range(count)]
        self.history = list(position["history"])
        self._batches.epoch = position["epoch"]
        self._batches.skipped = position["step"]
        return int(position["epoch"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Tell the batches which epoch begins; give back the metrics of one that was cut off."""
        self._epoch = self._batches.epoch = epoch
        variables = self.model.metrics_variables
        if self._batches.skipped and self._metrics is not None:
            for variable, value in zip(variables, self._metrics, strict=False):
                variable.assign(value)
        self._metrics = None

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Write a checkpoint now and then."""
        step = self._batches.skipped + batch + 1
        # After an epoch's last step there is none to go on with: the epoch's end comes next.
        if step % self._every == 0 and batch + 1 < len(self._batches):
            self._write(self._epoch, step)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write a checkpoint that goes on with the next epoch."""
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        self._write(epoch + 1, 0)

    def _write(self, epoch: int, step: int) -> None:
        trainer = self.model
        arrays = {name: ops.convert_to_numpy(v) for name, v in _variables(trainer).items()}
        _refuse_infinite(arrays)
        for i, variable in enumerate(trainer.metrics_variables):
            arrays[f"metric/{i}"] = ops.convert_to_numpy(variable)
        position: dict[str, Any] = {"epoch": epoch, "step": step, "settings": self._settings}
        position["history"] = self.history
        arrays[_POSITION] = np.frombuffer(json.dumps(position).encode(), np.uint8)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with partial.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        finally:
            partial.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        try:
            with np.load(self._path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            position = json.loads(bytes(arrays.pop(_POSITION)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"Expected a checkpoint. Received: {self._path}, which is damaged or something "
                f"else ({error}). Remove it to start from the beginning."
            ) from error
        if position["settings"] != self._settings:
            raise ConfigError(
                f"Expected the checkpoint of a training with these settings in {self._path}. "
                "Received: one with others. Restore the settings, or choose another output."
            )
        return arrays, position


def _refuse_infinite(arrays: dict[str, NDArray[Any]]) -> None:
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise ConfigError(
                f"Expected finite weights. Received: {name} with infinities or NaN, as after too "
                "large steps. Lower the learning rate; the last checkpoint is from before."
            )


def _variables(trainer: Any) -> dict[str, Any]:
    """Name all variables by their places: their paths need not be unique."""
    named = {f"model/{i}": variable for i, variable in enumerate(trainer.variables)}
    optimizer = {f"optimizer/{i}": v for i, v in enumerate(trainer.optimizer.variables)}
    return named | optimizer
