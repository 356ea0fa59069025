"""The mask generator that a run's settings name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amg_pipeline.config import load_config
from amg_pipeline.errors import WeightsError
from amg_pipeline.shard_runner import make_mask_generator
from tests.fakes import DiscModel, Shape, coordinate_image


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param(
            ["model.intra_op_threads=3"],
            {
                "backend": ("tensorflow", 3, True),
                "model": ("tiny", "default", "float32", None),
                "segmenter": (64, 1),
            },
            id="strict-packaged",
        ),
        pytest.param(
            [
                "model.precision=fast",
                "model.backend=jax",
                "model.variant=vit_b",
                "model.weights=/w.pth",
                "model.encoder_batch_size=4",
                "amg.points_per_batch=16",
                "amg.stability_score_thresh=0.5",
            ],
            {
                "backend": ("jax", 1, False),
                "model": ("vit_b", "/w.pth", "mixed_bfloat16", "float32"),
                "segmenter": (16, 4),
            },
            id="fast-checkpoint",
        ),
    ],
)
def test_make_mask_generator_sets_up_backend_model_and_algorithm(
    monkeypatch: pytest.MonkeyPatch, overrides: list[str], expected: dict[str, Any]
) -> None:
    from amg_pipeline.sam import loading
    from amg_pipeline.sam.model import SAM

    made: dict[str, Any] = {}
    model = DiscModel([Shape("disc", 30, 24, 12, 12)])

    def prepare(name: str, *, intra_op_threads: int, exact_float32: bool) -> None:
        made["backend"] = (name, intra_op_threads, exact_float32)

    def from_variant(
        name: str, *, weights: object, dtype: object, decoder_dtype: object
    ) -> DiscModel:
        made["model"] = (name, weights, dtype, decoder_dtype)
        return model

    monkeypatch.setattr(loading, "prepare_backend", prepare)
    monkeypatch.setattr(SAM, "from_variant", from_variant)

    generate = make_mask_generator(load_config(overrides=["amg.points_per_side=8", *overrides]))

    records = generate(coordinate_image(48, 64)).to_records()
    made["segmenter"] = model.requested[0]
    assert made == expected
    assert any(abs(record.rle.area - np.pi * 12**2) < 20 for record in records)


def test_other_weights_than_the_plans_are_refused_before_the_backend_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from amg_pipeline.sam import loading

    chosen: list[str] = []
    monkeypatch.setattr(loading, "prepare_backend", lambda name, **_: chosen.append(name))
    with pytest.raises(
        WeightsError, match=r"must be the file that the plan was made with, .* abab"
    ):
        make_mask_generator(load_config(), weights_sha256="ab" * 32)
    assert chosen == []
