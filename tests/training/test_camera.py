from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.camera import photograph, to_uint8
from amg_pipeline.training.noise import noise_bank


@pytest.fixture
def painting() -> np.ndarray:
    ramp = np.linspace(0.2, 0.8, 64, dtype=np.float32)
    return np.stack(
        [np.tile(ramp, (64, 1)), np.tile(ramp[:, None], (1, 64)), np.full((64, 64), 0.4)]
    )


def test_photograph_gives_8_bits_and_leaves_the_painting(painting: np.ndarray) -> None:
    before = painting.copy()
    for seed in range(80):  # every branch: blurs, shadows, noise, grey, JPEG or not
        pixels = photograph(noise_bank(64), np.random.default_rng(seed), painting)
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(painting, before)


def test_some_photographs_are_grey_and_most_are_not(painting: np.ndarray) -> None:
    spans = [
        int(np.ptp(photograph(noise_bank(64), np.random.default_rng(s), painting), axis=2).max())
        for s in range(120)
    ]
    grey = sum(span <= 1 for span in spans)
    assert 0 < grey < 20


def test_left_stays_darker_than_right(painting: np.ndarray) -> None:
    # The camera may change tones but must not undo what was painted.
    grey = np.broadcast_to(painting[:1], painting.shape).astype(np.float32)
    steps = []
    for seed in range(40):
        pixels = photograph(noise_bank(64), np.random.default_rng(seed), grey).astype(float)
        steps.append(pixels[:, 48:].mean() - pixels[:, :16].mean())
    assert min(steps) > 0
    assert np.median(steps) > 60


def test_to_uint8_rounds_clips_and_interleaves() -> None:
    image = np.array([[[-1.0]], [[0.5]], [[2.0]]], np.float32)
    assert to_uint8(image).tolist() == [[[0, 128, 255]]]
