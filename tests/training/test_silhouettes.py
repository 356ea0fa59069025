from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.shapes import Figure, Shape, box
from amg_pipeline.training.silhouettes import SIMPLE_MAKERS, Maker, with_parts
from amg_pipeline.training.sprites import rasterise

MAKERS = sorted(set(SIMPLE_MAKERS), key=lambda maker: maker.__name__)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__.strip("_"))
def test_silhouette_fills_some_of_the_unit_frame(maker: Maker) -> None:
    for seed in range(12):
        shape = maker(np.random.default_rng(seed))
        reach = np.abs(np.concatenate([figure.points for figure in shape.body])).max()
        assert 0.5 < reach <= 1.3
        sprite = rasterise(shape, np.eye(2) * 30, np.array([48.0, 48.0]), size=96)
        assert sprite is not None
        assert (sprite.alpha > 0.5).sum() > 60


def test_every_kind_of_part_is_drawn_and_lies_on_the_shape() -> None:
    square = Shape((Figure(box(-1, -1, 1, 1)),))
    num_figures, tones = set(), set()
    for seed in range(60):
        shape = with_parts(np.random.default_rng(seed), square)
        (layer,) = shape.layers
        num_figures.add(len(layer.figures))
        tones.add(layer.tone)
        sprite = rasterise(shape, np.eye(2) * 30, np.array([48.0, 48.0]), size=96)
        assert sprite is not None
        assert (sprite.alpha * sprite.layers[0].alpha).sum() > 10
    assert len(num_figures) > 4
    assert tones == {None, 0.55, 0.75, 1.3}


def test_stroke_gets_no_inner_area() -> None:
    # An inner copy of an open line would be a filled polygon that leaves the stroke.
    line = Shape((Figure(np.array([(-1.0, 0.0), (1.0, 0.0)]), 0.3),))
    for seed in range(40):
        (layer,) = with_parts(np.random.default_rng(seed), line).layers
        assert all(len(figure.points) > 2 for figure in layer.figures)
