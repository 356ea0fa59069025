from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.relief import linear_falloff, outlined, relief_shade
from amg_pipeline.training.shapes import Figure, Relief, Shape, ellipse
from amg_pipeline.training.sprites import Sprite, rasterise

LIGHT = np.array([1.0, 0.0])  # from the right


def disc(relief: Relief, radius: float = 24.0) -> Sprite:
    shape = Shape((Figure(ellipse(0, 0, 1, 1)),), relief=relief)
    sprite = rasterise(shape, np.eye(2) * radius, np.array([32.0, 32.0]), size=64)
    assert sprite is not None
    return sprite


@pytest.mark.parametrize("relief", ["dome", "cylinder", "flat"])
@pytest.mark.parametrize("radius", [3.0, 24.0], ids=["tiny", "large"])
def test_side_towards_the_light_is_brighter(relief: Relief, radius: float) -> None:
    sprite = disc(relief, radius)
    shade = relief_shade(np.random.default_rng(0), sprite, light=LIGHT, light_share=0.5, gloss=0.0)
    middle = shade.shape[1] // 2
    inside = sprite.alpha > 0.9
    right, left = inside.copy(), inside.copy()
    right[:, : middle + 1], left[:, middle - 1 :] = False, False
    assert shade[right].mean() > shade[left].mean() + 0.05
    assert shade.min() >= 0.15


def test_no_light_share_lights_evenly() -> None:
    shade = relief_shade(
        np.random.default_rng(0), disc("dome"), light=LIGHT, light_share=0.0, gloss=1.0
    )
    assert (shade == 1.0).all()


def test_gloss_adds_a_highlight_on_round_things_only() -> None:
    for relief, gains in (("dome", True), ("flat", False)):
        dull, shiny = (
            relief_shade(
                np.random.default_rng(0),
                disc(relief),  # type: ignore[arg-type]
                light=LIGHT,
                light_share=0.2,
                gloss=gloss,
            )
            for gloss in (0.0, 0.7)
        )
        assert ((shiny - dull).max() > 0.5) == gains


def test_outline_changes_the_rim_only() -> None:
    sprite = disc("dome")
    body = np.full((3, *sprite.alpha.shape), 0.5, np.float32)
    dark = outlined(body, sprite.alpha, 0.2)
    middle = sprite.alpha.shape[0] // 2
    assert dark[:, middle, middle] == pytest.approx(0.5)
    assert dark.min() < 0.2


def test_falloff_is_linear_and_never_dark() -> None:
    field = linear_falloff(np.random.default_rng(3), 20, 30, strength=0.2)
    np.testing.assert_allclose(np.diff(field, n=2, axis=0), 0.0, atol=1e-6)
    assert linear_falloff(np.random.default_rng(3), 20, 30, strength=9.0).min() >= np.float32(0.2)
