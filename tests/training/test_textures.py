from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.noise import NoiseBank, noise_bank
from amg_pipeline.training.textures import (
    NUM_FAMILIES,
    paint_texture,
    planar,
    random_family,
)

PALETTE = np.array([(0.3, 0.4, 0.2), (0.6, 0.5, 0.4), (0.2, 0.2, 0.5)], np.float32)


@pytest.fixture(scope="module")
def bank() -> NoiseBank:
    return noise_bank(64)


@pytest.mark.parametrize("family", range(NUM_FAMILIES))
@pytest.mark.parametrize(("height", "width"), [(2, 2), (3, 50), (64, 64)], ids=str)
def test_every_family_paints_any_patch(
    bank: NoiseBank, family: int, height: int, width: int
) -> None:
    for seed in range(8):
        patch = paint_texture(
            bank, np.random.default_rng(seed), height, width, family=family, palette=PALETTE
        )
        assert patch.shape == (3, height, width)
        assert patch.dtype == np.float32
        assert np.isfinite(patch).all()
        assert -0.5 < patch.min() <= patch.max() < 2.0


@pytest.mark.parametrize("family", range(NUM_FAMILIES))
def test_texture_shows_its_palette_and_varies_with_the_seed(bank: NoiseBank, family: int) -> None:
    patches = [
        paint_texture(bank, np.random.default_rng(seed), 64, 64, family=family, palette=PALETTE)
        for seed in range(6)
    ]
    means = np.stack([patch.mean(axis=(1, 2)) for patch in patches])
    assert np.abs(means - PALETTE.mean(axis=0)).max() < 0.35
    assert len({patch.tobytes() for patch in patches}) == 6


def test_random_family_draws_all() -> None:
    rng = np.random.default_rng(0)
    assert {random_family(rng) for _ in range(1000)} == set(range(NUM_FAMILIES))


def test_planar_puts_channels_first() -> None:
    from PIL import Image

    patch = planar(Image.new("RGB", (5, 3), (255, 0, 51)))
    assert patch.shape == (3, 3, 5)
    np.testing.assert_allclose(patch[:, 0, 0], [1.0, 0.0, 0.2], atol=1e-6)
