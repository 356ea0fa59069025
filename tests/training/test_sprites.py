from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.shapes import Figure, PartLayer, Shape, box, ellipse
from amg_pipeline.training.sprites import rasterise

DISC = Shape((Figure(ellipse(0, 0, 1, 1, num=200)),))
CENTRE = np.array([64.0, 64.0])


def scaled(factor: float) -> np.ndarray:
    return np.eye(2) * factor


@pytest.mark.parametrize("radius", [5.0, 20.0, 45.0], ids=["4 samples", "4 too", "3 samples"])
def test_disc_has_its_area(radius: float) -> None:
    sprite = rasterise(DISC, scaled(radius), CENTRE, size=128)
    assert sprite is not None
    assert sprite.alpha.sum() == pytest.approx(np.pi * radius**2, rel=0.06)
    assert 0 <= sprite.alpha.min() <= sprite.alpha.max() == 1


def test_hole_is_cut_out() -> None:
    ring = Shape(DISC.body, holes=(Figure(ellipse(0, 0, 0.5, 0.5, num=100)),))
    sprite = rasterise(ring, scaled(30), CENTRE, size=128)
    assert sprite is not None
    assert sprite.alpha.sum() == pytest.approx(0.75 * np.pi * 900, rel=0.06)


def test_patch_is_clipped_to_the_scene() -> None:
    sprite = rasterise(DISC, scaled(30), np.array([0.0, 128.0]), size=128)
    assert sprite is not None
    rows, columns = sprite.window
    assert (rows.stop, columns.start) == (128, 0)
    assert sprite.alpha.sum() == pytest.approx(np.pi * 900 / 4, rel=0.08)


def test_shape_outside_the_scene_gives_none() -> None:
    assert rasterise(DISC, scaled(10), np.array([-40.0, 64.0]), size=128) is None


def test_stroke_has_its_width_and_round_ends() -> None:
    bar = Shape((Figure(np.array([(-0.5, 0.0), (0.5, 0.0)]), 0.2),))
    sprite = rasterise(bar, scaled(40), CENTRE, size=128)
    assert sprite is not None
    assert sprite.alpha.sum() == pytest.approx(40 * 8 + np.pi * 16, rel=0.08)


def test_parts_of_a_layer_have_ids_of_their_own_unless_joined() -> None:
    halves = (Figure(box(-1, -1, 0, 1)), Figure(box(0.2, -1, 1, 1)))
    shape = Shape(DISC.body, layers=(PartLayer(halves), PartLayer(halves, tone=0.5, joined=True)))
    sprite = rasterise(shape, scaled(30), CENTRE, size=128)
    assert sprite is not None
    apart, joined = sprite.layers
    assert np.unique(apart.ids).tolist() == [0, 1, 2]
    assert np.unique(joined.ids).tolist() == [0, 1]
    assert joined.tone == 0.5
    np.testing.assert_array_equal(apart.alpha, joined.alpha)


def test_ids_agree_with_coverage() -> None:
    shape = Shape(DISC.body, layers=(PartLayer((Figure(box(-0.4, -0.4, 0.6, 0.3)),)),))
    sprite = rasterise(shape, scaled(30), CENTRE, size=128)
    assert sprite is not None
    (layer,) = sprite.layers
    differing = (layer.ids > 0) != (layer.alpha > 0.5)
    assert differing.sum() < 0.2 * (2 * (30 + 21))


def test_margin_is_kept_free() -> None:
    tight = rasterise(DISC, scaled(20), CENTRE, size=128)
    wide = rasterise(DISC, scaled(20), CENTRE, size=128, margin_px=6)
    assert tight is not None
    assert wide is not None
    assert wide.alpha.shape[0] == tight.alpha.shape[0] + 10
    assert wide.alpha[:5].max() == 0


def test_scene_points_map_back_to_the_unit_frame() -> None:
    turn = np.array([[0.0, -20.0], [10.0, 0.0]])
    sprite = rasterise(DISC, turn, CENTRE, size=128)
    assert sprite is not None
    point = turn @ np.array([0.3, -0.7]) + CENTRE
    np.testing.assert_allclose(sprite.to_unit @ [*point, 1.0], [0.3, -0.7], atol=1e-9)
