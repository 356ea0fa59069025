"""A model in this process, as a run's or an evaluation's settings name it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from amg_pipeline.config import ModelSettings
from amg_pipeline.sam.backend import has_accelerator, prepare_backend

if TYPE_CHECKING:
    from amg_pipeline.sam.model import SAM


def load_model(settings: ModelSettings) -> SAM:
    """Choose backend, threads and numerics, and load a model.

    Imports Keras, so it must run after the process's devices are chosen. With precision `fast`,
    layers compute in bfloat16; on a processor the encoder alone, since the decoder's low-rank form
    (`image_side`) needs float32 and saves more.

    Raises:
        ConfigError: If the backend cannot be used in this process.
        WeightsError: If the weights cannot be loaded.
    """
    is_strict = settings.precision == "strict"
    prepare_backend(
        settings.backend,
        intra_op_threads=settings.intra_op_threads or os.cpu_count() or 1,
        exact_float32=is_strict,
    )
    from amg_pipeline.sam.model import SAM

    return SAM.from_variant(
        settings.variant,
        weights=settings.weights or "default",
        dtype="float32" if is_strict else "mixed_bfloat16",
        decoder_dtype=None if is_strict or has_accelerator() else "float32",
    )
