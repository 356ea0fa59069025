from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.training.label_maps import OBJECTS
from amg_pipeline.training.noise import noise_bank
from amg_pipeline.training.painter import ScenePainter
from amg_pipeline.training.shapes import Figure, PartLayer, Shape, box, ellipse

DISC = Shape((Figure(ellipse(0, 0, 1, 1, num=64)),))
SIZE = 64


def make_painter(seed: int = 0, *, shadows: bool = False) -> ScenePainter:
    painter = ScenePainter(noise_bank(SIZE), np.random.default_rng(seed), SIZE)
    painter.background()
    painter.shadows = shadows
    return painter


def test_object_is_painted_and_labelled_where_it_is_placed() -> None:
    painter = make_painter()
    before = painter.canvas.copy()
    painter.place(DISC, None, centre=np.array([40.0, 20.0]), half_px=10)
    labels = painter.label_maps.finish()[OBJECTS]
    rows, columns = np.nonzero(labels)
    assert (rows.mean(), columns.mean()) == pytest.approx((19.5, 39.5), abs=0.7)
    changed = np.abs(painter.canvas - before).max(axis=0) > 1e-6
    assert changed[labels > 0].mean() > 0.95
    assert not changed[40:].any()


def test_shadow_darkens_the_ground_but_is_no_mask() -> None:
    painter = make_painter(1, shadows=True)
    painter.shadow_reach, painter.light = 0.5, np.array([0.0, -1.0])
    before = painter.canvas.copy()
    painter.place(Shape(DISC.body, relief="flat"), None, centre=np.array([32.0, 20.0]), half_px=8)
    labels = painter.label_maps.finish()[OBJECTS]
    darkened = (painter.canvas.sum(axis=0) < 0.97 * before.sum(axis=0)) & (labels == 0)
    assert darkened[28:40, 26:38].sum() > 20, "below the disc, away from the light"


def test_object_outside_changes_nothing() -> None:
    painter = make_painter()
    before = painter.canvas.copy()
    painter.place(DISC, None, centre=np.array([-50.0, -50.0]), half_px=10)
    np.testing.assert_array_equal(painter.canvas, before)
    assert painter.label_maps.finish()[OBJECTS].max() == 0


def test_object_can_be_told_from_a_ground_of_its_own_colour() -> None:
    contrasts = []
    for seed in range(30):
        painter = make_painter(seed)
        painter.canvas = np.full((3, SIZE, SIZE), 0.5, np.float32)
        surface = painter.surface(near=np.full(3, 0.5, np.float32))
        painter.place(DISC, surface, centre=np.array([32.0, 32.0]), half_px=20)
        inside = painter.label_maps.finish()[OBJECTS] > 0
        contrasts.append(np.abs(painter.canvas[:, inside] - 0.5).mean())
    assert min(contrasts) > 0.02


def test_members_of_a_group_get_parts_of_one_look() -> None:
    shape = Shape((Figure(box(-1, -1, 1, 1)),), layers=(PartLayer((Figure(box(-1, -1, 1, 0)),)),))
    painter = make_painter(4)
    surface = painter.surface()
    for x in (16.0, 48.0):
        painter.place(shape, surface, centre=np.array([x, 32.0]), half_px=12)
    left = painter.canvas[:, 22:30, 6:26].mean(axis=(1, 2))
    right = painter.canvas[:, 22:30, 38:58].mean(axis=(1, 2))
    assert np.linalg.norm(left - right) < 0.35


def test_fuzzy_outlines_are_rough_but_stay_near_the_shape() -> None:
    size = 256
    painter = ScenePainter(noise_bank(size), np.random.default_rng(0), size)
    y, x = np.mgrid[:size, :size] + 0.5
    distance = np.hypot(x - 128, y - 128)
    moved = []
    for _ in range(24):
        painter.background()
        painter.place(DISC, None, centre=np.array([128.0, 128.0]), half_px=60)
        labels = painter.label_maps.finish()[OBJECTS]
        disc = labels == labels.max()
        assert disc[distance < 50].all()
        assert not disc[distance > 70].any()
        moved.append(int((disc != (distance < 60)).sum()))
    # Most outlines are sharp, about a third are not.
    assert np.percentile(moved, 40) < 120
    assert np.percentile(moved, 90) > 200
