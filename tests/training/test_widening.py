"""A model with a wider encoder starts from what a narrow one has learned."""

from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.widening import widen
from tests.sam.small_sam import as_arrays
from tests.sam.small_sizes import SMALL
from tests.training.test_growing import by_path, random_sam

pytestmark = pytest.mark.training


def wider(factor: int) -> dict[str, int]:
    return {
        "embed_dim": factor * SMALL.embed_dim,
        "num_heads": factor * SMALL.num_heads,
    }


@pytest.mark.parametrize("factor", [2, 3])
def test_a_wider_model_answers_as_the_narrow_one(factor: int) -> None:
    narrow, wide = random_sam(0), random_sam(1, **wider(factor))
    widen(narrow, wide, seed=0)
    size = SMALL.img_size
    pixels = np.random.default_rng(2).normal(size=(1, size, size, 3)).astype(np.float32)
    np.testing.assert_allclose(
        as_arrays(wide.image_encoder(pixels)),
        as_arrays(narrow.image_encoder(pixels)),
        rtol=1e-3,
        atol=1e-4,
    )


def test_the_copies_of_a_channel_are_read_differently() -> None:
    narrow, wide = random_sam(0), random_sam(1, **wider(2))
    widen(narrow, wide, seed=0)
    kernel = by_path(wide)["image_encoder/blocks_0/mlp/lin1/kernel"]
    first, second = np.split(kernel, 2, axis=0)
    assert np.abs(first - second).min() > 0.0


def test_the_decoder_stays_as_it_is() -> None:
    narrow, wide = random_sam(0), random_sam(1, **wider(2))
    widen(narrow, wide, seed=0)
    for path, values in by_path(narrow).items():
        if not path.startswith("image_encoder"):
            np.testing.assert_array_equal(by_path(wide)[path], values)


@pytest.mark.parametrize("sizes", [{"img_size": 128}, {"embed_dim": 24, "num_heads": 3}])
def test_models_that_differ_otherwise_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="equal but for embed_dim"):
        widen(random_sam(0), random_sam(1, **sizes), seed=0)
