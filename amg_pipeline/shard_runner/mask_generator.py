"""The model as far as a runner of shards knows it, and the one that a run's settings name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.config import RunConfig
from amg_pipeline.records import MaskRecord


class FoundMasks(Protocol):
    """The masks of an image, as far as the model is needed for them."""

    def to_records(self) -> tuple[MaskRecord, ...]:
        """Do the rest; may run in another thread, beside the model's work on the next image."""
        ...


#: From uint8 `(height, width, 3)` RGB to the masks of an image.
MaskGenerator = Callable[[NDArray[np.uint8]], FoundMasks]


def make_mask_generator(config: RunConfig) -> MaskGenerator:
    """Load the model of a run into this process and give its mask generator.

    Imports Keras, so it must run after the process's devices are chosen.

    Args:
        config: Settings with everything resolved that is chosen when the plan is made.

    Raises:
        ConfigError: If the backend cannot be used in this process.
        WeightsError: If the weights cannot be loaded.
    """
    from amg_pipeline.sam.backend import prepare_backend

    model = config.model
    is_strict = model.precision == "strict"
    prepare_backend(
        model.backend, intra_op_threads=model.intra_op_threads or 1, exact_float32=is_strict
    )
    from amg_pipeline.amg.generator import AutomaticMaskGenerator
    from amg_pipeline.sam.model import SAM

    sam = SAM.from_variant(
        model.variant,
        weights=model.weights or "default",
        dtype="float32" if is_strict else "mixed_bfloat16",
    )
    generator = AutomaticMaskGenerator.from_settings(
        sam, config.amg, encoder_batch_size=model.encoder_batch_size
    )
    return generator.find
