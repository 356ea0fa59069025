"""The model as far as a runner of shards knows it, and the one that a run's settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.config import ModelSettings, RunConfig
from amg_pipeline.errors import WeightsError
from amg_pipeline.records import MaskRecord


class FoundMasks(Protocol):
    """The masks of an image, as far as the model is needed for them."""

    def to_records(self) -> tuple[MaskRecord, ...]:
        """Do the rest; may run in another thread, beside the model's work on the next image."""
        ...


#: From uint8 `(height, width, 3)` RGB to the masks of an image.
MaskGenerator = Callable[[NDArray[np.uint8]], FoundMasks]


def make_mask_generator(config: RunConfig, *, weights_sha256: str | None = None) -> MaskGenerator:
    """Load the model of a run into this process and give its mask generator.

    Imports Keras, so it must run after the process's devices are chosen.

    Args:
        config: Settings with everything resolved that is chosen when the plan is made.
        weights_sha256: What the weights must have, since a path may name another file on another
            machine; None takes what is there.

    Raises:
        ConfigError: If the backend cannot be used in this process.
        WeightsError: If the weights cannot be loaded, or are others.
    """
    model = config.model
    if weights_sha256 is not None:
        _require_weights(model, weights_sha256)
    from amg_pipeline.amg.generator import AutomaticMaskGenerator
    from amg_pipeline.sam.loading import load_model

    # Plans resolve the threads; where there is no plan, several may share a machine.
    model = model.model_copy(update={"intra_op_threads": model.intra_op_threads or 1})
    generator = AutomaticMaskGenerator.from_settings(
        load_model(model), config.amg, encoder_batch_size=model.encoder_batch_size
    )
    return generator.find


def _require_weights(model: ModelSettings, expected: str) -> None:
    from amg_pipeline.sam.weights import weights_sha256

    found = weights_sha256(model.variant, model.weights)
    if found != expected:
        raise WeightsError(
            f"model.weights must be the file that the plan was made with, SHA-256 {expected}. "
            f"Received: {found}. Put the same file on every machine, or on an object store"
        )
