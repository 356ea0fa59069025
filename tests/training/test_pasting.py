"""Things that people marked are pasted into other photographs."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amg_pipeline.training.label_maps import LEVELS, OBJECTS, PARTS, UNITS
from amg_pipeline.training.pasting import cut_out, paste
from amg_pipeline.training.scenes import Scene


def photograph(height: int = 40, width: int = 60) -> Scene:
    """A gray photograph with a red object in its middle and a part in that."""
    image = np.full((height, width, 3), 128, np.uint8)
    labels = np.zeros((len(LEVELS), height, width), np.uint8)
    labels[OBJECTS, 10:20, 20:40] = 1
    labels[PARTS, 12:15, 22:30] = 1
    image[labels[OBJECTS] == 1] = (255, 0, 0)
    return Scene(image, labels)


def test_an_object_is_cut_out_at_its_edges() -> None:
    (thing,) = cut_out(photograph())
    assert thing.rgba.shape == (10, 20, 4)
    assert (thing.rgba == (255, 0, 0, 255)).all()


def test_what_no_person_marked_is_not_cut_out() -> None:
    scene = photograph()
    scene.label_maps[UNITS] = 1
    assert cut_out(scene) == []


def test_small_large_and_cut_off_things_are_left() -> None:
    scene = photograph()
    scene.label_maps[OBJECTS] = 0
    scene.label_maps[OBJECTS, 5:7, 5:7] = 1
    scene.label_maps[OBJECTS, 10:40, 10:50] = 2
    scene.label_maps[OBJECTS, :8, 50:] = 3
    assert cut_out(scene) == []


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(8, 50), st.integers(8, 50)),
)
def test_every_pixel_of_a_pasted_thing_is_its_own(seed: int, size: tuple[int, int]) -> None:
    things = cut_out(photograph())
    empty = Scene(np.full((*size, 3), 128, np.uint8), np.ones((len(LEVELS), *size), np.uint8))
    pasted = paste(np.random.default_rng(seed), empty, things)
    is_new = pasted.label_maps[OBJECTS] > 1
    assert is_new.any()
    # Where a thing lies, nothing else may be meant; where none lies, all is as it was.
    assert (pasted.label_maps[PARTS] == ~is_new).all()
    assert (pasted.label_maps[UNITS] == ~is_new).all()
    far = pasted.image[..., 0].astype(int) - pasted.image[..., 1]
    assert (far[is_new] > 60).all()
    assert (empty.image == 128).all()


def test_no_more_is_pasted_than_there_are_numbers() -> None:
    scene = photograph()
    scene.label_maps[OBJECTS] = 255
    pasted = paste(np.random.default_rng(0), scene, cut_out(photograph()))
    np.testing.assert_array_equal(pasted.image, scene.image)


def test_the_same_draws_give_the_same_scene() -> None:
    scenes = [
        paste(np.random.default_rng(3), photograph(), cut_out(photograph())) for _ in range(2)
    ]
    np.testing.assert_array_equal(scenes[0].image, scenes[1].image)
