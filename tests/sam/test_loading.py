from __future__ import annotations

import pytest

from amg_pipeline.config import ModelSettings
from amg_pipeline.sam import loading
from amg_pipeline.sam.loading import load_model


@pytest.fixture(autouse=True)
def _prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backend and threads of this process are fixed already; `test_backend` starts fresh ones."""
    monkeypatch.setattr(loading, "prepare_backend", lambda *_, **__: None)


def test_strict_is_float32_throughout() -> None:
    sam = load_model(ModelSettings(variant="tiny"))
    assert sam.variant == "tiny"
    assert sam.image_encoder.compute_dtype == sam.mask_decoder.compute_dtype == "float32"


def test_fast_on_a_processor_keeps_the_decoder_in_float32() -> None:
    sam = load_model(ModelSettings(variant="tiny", precision="fast"))
    assert sam.image_encoder.compute_dtype == "bfloat16"
    assert sam.mask_decoder.compute_dtype == "float32"
    assert sam.mask_decoder.transformer.compute_dtype == "float32"


def test_fast_on_an_accelerator_is_half_precision_throughout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "has_accelerator", lambda: True)
    sam = load_model(ModelSettings(variant="tiny", precision="fast"))
    assert sam.image_encoder.compute_dtype == sam.mask_decoder.compute_dtype == "bfloat16"
