from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training import layouts
from amg_pipeline.training.label_maps import OBJECTS, UNITS
from amg_pipeline.training.noise import noise_bank
from amg_pipeline.training.painter import ScenePainter

SIZE = 96


def painted(name: str, seed: int) -> np.ndarray:
    painter = ScenePainter(noise_bank(SIZE), np.random.default_rng(seed), SIZE)
    getattr(layouts, name)(painter)
    return painter.label_maps.finish()


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("_mixed", 3, 14),
        ("_dominant", 1, 7),
        ("_crowded", 6, 23),
        ("_many_small", 7, 18),
        ("_repeated", 2, 80),
        ("_outdoor", 3, 17),
    ],
)
def test_layout_has_its_number_of_objects(name: str, least: int, most: int) -> None:
    counts = [int(painted(name, seed)[OBJECTS].max()) for seed in range(6)]
    assert least <= np.median(counts)
    assert max(counts) <= most


def test_dominant_layout_has_a_large_object() -> None:
    shares = [np.bincount(painted("_dominant", s)[OBJECTS].ravel())[1:].max() for s in range(10)]
    assert np.median(shares) > 0.1 * SIZE * SIZE


def test_repeated_layout_has_groups() -> None:
    grouped = 0
    for seed in range(8):
        maps = painted("_repeated", seed)
        grouped += bool(((maps[UNITS] > 0) & (maps[OBJECTS] > 0)).any())
    assert grouped >= 6


def test_paint_layout_draws_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: set[int] = set()
    fakes = tuple(
        (lambda index: lambda painter: drawn.add(index))(i) for i in range(len(layouts._LAYOUTS))
    )
    monkeypatch.setattr(layouts, "_LAYOUTS", fakes)
    rng = np.random.default_rng(0)
    painter = ScenePainter(noise_bank(32), rng, 32)
    for _ in range(200):
        layouts.paint_layout(painter)
    assert drawn == set(range(len(fakes)))
