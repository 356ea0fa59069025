from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.checkpoint import fit_from_checkpoint
from amg_pipeline.training.fine_tuning import ProgressiveUnfreezing
from tests.sam.small_sam import as_arrays
from tests.training.labelled_images import small_batches, small_sam, small_trainer

pytestmark = pytest.mark.filterwarnings(
    # Keras passes TensorFlow variables to np.array; TensorFlow does not know NumPy 2's `copy` yet.
    "ignore:__array__ implementation:DeprecationWarning"
)

EPOCHS = 3


class KilledError(Exception):
    """Ends a training as a kill does, at a moment that a test chooses."""


class KillAfter(keras.callbacks.Callback):
    """Kills a training as soon as the checkpoint of an epoch and step is written."""

    def __init__(self, epoch: int, step: int) -> None:
        super().__init__()
        self._at = epoch, step
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (self._epoch, batch + 1) == self._at:
            raise KilledError

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if (epoch + 1, 0) == self._at:
            raise KilledError


def train(
    path: Path, blocks: dict[int, int], *further: Any, learning_rate: float = 0.01
) -> list[Any]:
    """Train two steps an epoch, each with a checkpoint; give all weights."""
    sam = small_sam()
    trainer = small_trainer(sam)
    trainer.optimizer.learning_rate = learning_rate
    fit_from_checkpoint(
        trainer,
        small_batches(sam, steps=2),
        path,
        epochs=EPOCHS,
        every=1,
        callbacks=[ProgressiveUnfreezing(blocks), *further],
        verbose=0,
    )
    return as_arrays(sam.variables)


@pytest.mark.training
@pytest.mark.parametrize("blocks", [{0: 0, 1: 1}, {0: 1, 1: 0}], ids=["joins", "leaves"])
def test_a_training_goes_on_at_the_border_between_two_sets_of_blocks(
    tmp_path: Path, blocks: dict[int, int]
) -> None:
    unbroken = train(tmp_path / "unbroken.npz", blocks)
    path = tmp_path / "killed.npz"
    for position in ((1, 0), (1, 1), (2, 0)):
        with pytest.raises(KilledError):
            train(path, blocks, KillAfter(*position))
    for weights in (train(path, blocks), train(path, blocks)):  # the latter finds it done
        for mine, other in zip(weights, unbroken, strict=True):
            np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-7)


@pytest.mark.training
def test_a_training_goes_on_that_was_killed_while_an_epoch_was_measured(tmp_path: Path) -> None:
    unbroken = train(tmp_path / "unbroken.npz", {0: 0})
    path = tmp_path / "killed.npz"
    with pytest.raises(KilledError):
        train(path, {0: 0}, KillAfter(0, 2))  # its last step is done, its end is not
    for mine, other in zip(train(path, {0: 0}), unbroken, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-7)


@pytest.mark.training
def test_weights_that_are_lost_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(ConfigError, match="Lower the learning rate"):
        train(path, {0: 0}, learning_rate=1e30)
    if path.exists():
        with np.load(path) as file:
            assert all(np.isfinite(file[name]).all() for name in file.files)
