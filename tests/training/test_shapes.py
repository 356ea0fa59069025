from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.shapes import (
    Figure,
    PartLayer,
    Shape,
    bent,
    box,
    contour,
    curve,
    ellipse,
    is_upright,
)


def test_contour_reaches_unit_radius_and_never_folds() -> None:
    for seed in range(30):
        points = contour(np.random.default_rng(seed), harmonics=9, roughness=0.6)
        radius = np.hypot(*points.T)
        assert radius.max() == pytest.approx(1.0)
        assert radius.min() > 0
        assert (np.diff(np.unwrap(np.arctan2(points[:, 1], points[:, 0]))) > 0).all()


def test_curve_crosses_the_unit_frame_within_it() -> None:
    line = curve(np.random.default_rng(0), bends=4)
    assert (line[0, 0], line[-1, 0]) == (-1.0, 1.0)
    assert np.abs(line).max() <= 1.0


def test_bend_of_nothing_keeps_the_outline() -> None:
    square = Shape((Figure(box(-1, -1, 1, 1)),), holes=(Figure(ellipse(0, 0, 0.5, 0.5)),))
    same = bent(np.random.default_rng(0), square, amount=0.0)
    assert len(same.body[0].points) == 24, "long edges get points that can bend"
    for corner in square.body[0].points:
        assert np.abs(same.body[0].points - corner).sum(axis=1).min() < 1e-12
    np.testing.assert_allclose(same.holes[0].points, square.holes[0].points)


def test_bend_moves_parts_with_the_body() -> None:
    square = Figure(box(-1, -1, 1, 1))
    stroke = Figure(np.array([(-1.0, -1.0), (1.0, 1.0)]), 0.2)
    shape = Shape((square, stroke), layers=(PartLayer((square,), tone=0.7), PartLayer(())))
    warped = bent(np.random.default_rng(1), shape, amount=0.2)
    np.testing.assert_allclose(warped.layers[0].figures[0].points, warped.body[0].points)
    assert np.abs(warped.body[0].points).max() != pytest.approx(1.0)
    assert warped.body[1].width == 0.2
    assert warped.layers[0].tone == 0.7
    assert warped.layers[1].figures == ()


def test_only_things_of_several_figures_are_upright() -> None:
    one = Figure(box(-1, -1, 1, 1))
    assert not is_upright(Shape((one,)))
    assert is_upright(Shape((one, one)))
