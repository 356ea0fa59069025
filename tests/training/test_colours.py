from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.colours import luminance, near_colour, random_colour, random_palette


def test_random_colours_are_valid_and_mostly_muted() -> None:
    rng = np.random.default_rng(0)
    colours = np.stack([random_colour(rng) for _ in range(500)])
    assert colours.min() >= 0.02
    assert colours.max() <= 0.98
    chroma = colours.max(axis=1) - colours.min(axis=1)
    assert 0.05 < np.median(chroma) < 0.35


@pytest.mark.parametrize("base", [0.05, 0.5, 0.95], ids=["dark", "middle", "bright"])
def test_near_colour_has_the_contrast_asked_for(base: float) -> None:
    rng = np.random.default_rng(1)
    start = np.full(3, base, np.float32)
    for _ in range(50):
        step = np.linalg.norm(near_colour(rng, start, contrast=0.15) - start)
        assert step == pytest.approx(0.15, abs=0.02)


def test_palette_starts_with_the_base() -> None:
    base = np.array([0.2, 0.4, 0.6], np.float32)
    palette = random_palette(np.random.default_rng(0), base)
    assert palette.shape == (3, 3)
    np.testing.assert_array_equal(palette[0], base)


def test_luminance_weighs_planes() -> None:
    planes = np.zeros((3, 2, 2), np.float32)
    planes[1] = 1.0
    np.testing.assert_allclose(luminance(planes), 0.59)
