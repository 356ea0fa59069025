"""A model of a finer resolution starts from what a coarser one has learned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from amg_pipeline.sam.model import SAM
from amg_pipeline.sam.weights.conversion import build_model
from amg_pipeline.training.growing import grow
from tests.sam.small_sam import as_arrays
from tests.sam.small_sizes import SMALL

pytestmark = pytest.mark.training


def random_sam(seed: int, **sizes: int) -> SAM:
    """A model whose positions, too, are drawn at random."""
    sam: SAM = build_model(replace(SMALL, **sizes))
    rng = np.random.default_rng(seed)
    for variable in sam.variables:
        variable.assign(rng.normal(0.0, 0.2, variable.shape))
    return sam


def by_path(sam: SAM) -> dict[str, np.ndarray]:
    return {v.path.partition("/")[2]: as_arrays(v) for v in sam.variables}


def test_a_model_of_the_same_sizes_becomes_equal() -> None:
    small, large = random_sam(0), random_sam(1)
    grow(small, large)
    for path, values in by_path(small).items():
        np.testing.assert_array_equal(by_path(large)[path], values)


def test_only_what_depends_on_the_resolution_is_changed() -> None:
    small, large = random_sam(0), random_sam(1, img_size=96, patch_size=8)
    grow(small, large)
    old, new = by_path(small), by_path(large)
    changed = {path for path in old if old[path].shape != new[path].shape}
    assert {path.rsplit("/", 1)[-1] for path in changed} == {
        "pos_embed",
        "rel_pos_h",
        "rel_pos_w",
        "kernel",
    }
    # The window's own relative positions stay: a window has as many tokens as before.
    assert len([path for path in changed if "rel_pos" in path]) == 2
    for path in old.keys() - changed:
        np.testing.assert_array_equal(new[path], old[path])


def test_smaller_patches_see_what_larger_ones_see_of_the_image_enlarged() -> None:
    small, large = random_sam(0), random_sam(1, img_size=32, patch_size=8)
    grow(small, large)
    pixels = np.random.default_rng(2).normal(size=(1, 32, 32, 3)).astype(np.float32)
    enlarged = pixels.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(
        as_arrays(large.image_encoder(pixels)),
        as_arrays(small.image_encoder(enlarged)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_positions_keep_their_place_on_the_image() -> None:
    small, large = random_sam(0), random_sam(1, img_size=112)
    ramp = np.linspace(0.0, 3.0, 4, dtype=np.float32)
    small.image_encoder.pos_embed.assign(
        np.broadcast_to(ramp[None, :, None, None], small.image_encoder.pos_embed.shape)
    )
    grow(small, large)
    grown = as_arrays(large.image_encoder.pos_embed)
    np.testing.assert_allclose(grown[0, :, 3, 0], np.linspace(0.0, 3.0, 7), rtol=1e-6)


@pytest.mark.parametrize("sizes", [{"embed_dim": 24}, {"patch_size": 32, "img_size": 128}])
def test_models_that_differ_otherwise_are_refused(sizes: dict[str, int]) -> None:
    small, large = random_sam(0), random_sam(1, **sizes)
    with pytest.raises(ValueError, match="equal but for img_size and patch_size"):
        grow(small, large)
