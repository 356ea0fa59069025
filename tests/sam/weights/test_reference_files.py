"""Checkpoints that other implementations wrote give those implementations' outputs.

The files and the outputs come from the scripts in `tests/reference/weights`; the weights are
random, so a swapped, transposed or unfilled tensor shows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amg_pipeline.sam.weights import inspect, load_weights
from amg_pipeline.sam.weights.architecture import SamArchitecture
from amg_pipeline.sam.weights.conversion import build_model
from tests.sam.weights.conftest import REFERENCE


@pytest.mark.parametrize("name", ["official.pth", "huggingface.safetensors", "kerashub.weights.h5"])
def test_loaded_model_computes_what_its_writer_computed(
    name: str, reference_file: Callable[[str], Path]
) -> None:
    path = reference_file(name)
    model = build_model(SamArchitecture(**inspect(path).architecture))
    load_weights(model, path)
    expected = np.load(REFERENCE / f"{name.partition('.')[0]}.npz")
    embedding = model.image_encoder(expected["pixels"])
    sparse, dense = model.prompt_encoder(
        points=(expected["coords"], expected["labels"]), masks=expected["masks"]
    )
    logits, iou = model.mask_decoder(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    assert_close(embedding, expected["embedding"])
    assert_close(logits, expected["logits"])
    assert_close(iou, expected["iou"])


def assert_close(received: Any, expected: np.ndarray[Any, Any]) -> None:
    from keras import ops

    # 1e-5 of the largest absolute value; measured: below 2e-6.
    atol = 1e-5 * float(np.abs(expected).max())
    np.testing.assert_allclose(ops.convert_to_numpy(received), expected, rtol=0, atol=atol)
