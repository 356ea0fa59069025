from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training import things
from amg_pipeline.training.shapes import is_upright
from amg_pipeline.training.sprites import rasterise
from amg_pipeline.training.things import Kind, random_shape


@pytest.mark.parametrize("kind", ["any", "simple", "composed", "outdoor"])
def test_random_shape_can_be_drawn(kind: Kind) -> None:
    for seed in range(60):
        shape = random_shape(np.random.default_rng(seed), kind)
        figures = [*shape.body, *shape.holes, *(f for layer in shape.layers for f in layer.figures)]
        assert all(np.isfinite(figure.points).all() for figure in figures)
        sprite = rasterise(shape, np.eye(2) * 40, np.array([64.0, 64.0]), size=128)
        assert sprite is not None
        assert (sprite.alpha > 0.5).sum() > 100


def test_parts_of_composed_things_lie_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    # Windows, wheels, heads: nearly all of each layer must be on the body.
    monkeypatch.setattr(things, "with_parts", lambda rng, shape: shape)
    checked = 0
    for seed in range(60):
        shape = random_shape(np.random.default_rng(seed), "composed")
        sprite = rasterise(shape, np.eye(2) * 40, np.array([64.0, 64.0]), size=128)
        assert sprite is not None
        for layer in sprite.layers if is_upright(shape) else ():  # vessels' bands cross them
            assert (layer.alpha * sprite.alpha).sum() > 0.8 * layer.alpha.sum()
            checked += 1
    assert checked > 30
