from __future__ import annotations

import numpy as np

from amg_pipeline.training.backgrounds import paint_background
from amg_pipeline.training.noise import noise_bank


def test_background_covers_the_frame_with_one_to_five_regions() -> None:
    counts = set()
    for seed in range(80):
        canvas, labels = paint_background(noise_bank(64), np.random.default_rng(seed), size=64)
        assert canvas.shape == (3, 64, 64)
        assert np.isfinite(canvas).all()
        assert labels.min() >= 1
        assert labels.max() <= 5
        counts.add(len(np.unique(labels)))
    assert counts >= {1, 2, 3, 4}


def test_outdoor_background_has_its_ground_below() -> None:
    below = 0
    for seed in range(20):
        _, labels = paint_background(
            noise_bank(64), np.random.default_rng(seed), size=64, outdoor=True
        )
        assert len(np.unique(labels)) >= 2
        below += labels[-4:].mean() > labels[:4].mean()
    assert below >= 19


def test_regions_look_different() -> None:
    # Averaged over scenes: colours within a region are closer than across regions.
    within, across = [], []
    for seed in range(30):
        canvas, labels = paint_background(noise_bank(64), np.random.default_rng(seed), size=64)
        ids, sizes = np.unique(labels, return_counts=True)
        if (sizes > 200).sum() < 2:
            continue
        means = np.stack([canvas[:, labels == k].mean(axis=1) for k in ids[sizes > 200]])
        across.append(np.linalg.norm(means[0] - means[1]))
        region = canvas[:, labels == ids[sizes > 200][0]]
        halves = np.array_split(region, 2, axis=1)
        within.append(np.linalg.norm(halves[0].mean(axis=1) - halves[1].mean(axis=1)))
    assert np.median(across) > 1.5 * np.median(within)
