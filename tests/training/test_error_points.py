from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from amg_pipeline.training.error_points import draw_error_points
from tests.sam.small_sam import as_arrays


def draw(logits: np.ndarray, targets: np.ndarray, draws: list[float]) -> list[tuple[int, ...]]:
    found = as_arrays(
        draw_error_points(
            logits.astype(np.float32), targets.astype(np.float32), np.array(draws, np.float32)
        )
    )
    return [tuple(int(part[i]) for part in found) for i in range(len(draws))]


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), u=st.floats(0.0, 0.999999))
def test_a_wrong_pixel_is_drawn_with_what_the_target_is_there(seed: int, u: float) -> None:
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(size=(1, 4, 5)), rng.integers(0, 2, (1, 4, 5))
    ((row, column, label),) = draw(logits, targets, [u])
    wrong = (logits[0] > 0) != (targets[0] > 0)
    if wrong.any():
        assert wrong[row, column]
    assert label == targets[0, row, column]


def test_every_wrong_pixel_is_drawn_as_often() -> None:
    logits, targets = -np.ones((4, 3, 3)), np.zeros((4, 3, 3))
    targets[:, 0, 1] = targets[:, 2, 2] = 1
    logits[:, 1, 0] = logits[:, 2, 0] = 1
    drawn = draw(logits, targets, [0.0, 0.3, 0.6, 0.99])
    assert drawn == [(0, 1, 1), (1, 0, 0), (2, 0, 0), (2, 2, 1)]


def test_a_mask_without_a_fault_gets_a_click_inside() -> None:
    targets = np.zeros((1, 3, 3))
    targets[0, 1, 2] = 1
    assert draw(2 * targets - 1, targets, [0.7]) == [(1, 2, 1)]


def test_without_a_target_there_is_a_place_all_the_same() -> None:
    assert draw(-np.ones((1, 2, 2)), np.zeros((1, 2, 2)), [0.5]) == [(1, 1, 0)]
