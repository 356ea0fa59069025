from __future__ import annotations

import numpy as np
import pytest

from amg_pipeline.amg.rle import encode_mask
from amg_pipeline.evaluation.annotated import AnnotatedImage, Annotation
from amg_pipeline.evaluation.edge_maps import add_mask_edges, predict_edges, suppress_beside_edges
from amg_pipeline.evaluation.edges import (
    EdgeCounts,
    count_edges,
    evaluate_edges,
    summarize_edges,
    thresholds_of,
)
from tests.evaluation.discs import SIZE, GrowingModel, annotated, disc


def line(column: int) -> np.ndarray:
    boundary = np.zeros((40, 40), bool)
    boundary[:, column] = True
    return boundary


def counts(recalled: list[int], truth: int, correct: list[int], found: list[int]) -> EdgeCounts:
    return EdgeCounts(
        np.array(recalled), np.full(len(recalled), truth), np.array(correct), np.array(found)
    )


def test_a_line_beside_the_border_is_right_within_the_distance() -> None:
    edges = line(20).astype(np.float32) * 0.6
    # 0.0075 of a diagonal of 56.6 is less than a pixel; 0.03 is less than two.
    near, far = [
        count_edges(edges, [line(21)], thresholds=thresholds_of(1), max_distance=d)
        for d in (0.03, 0.0075)
    ]

    assert (near.recall.item(), near.precision.item()) == (1.0, 1.0)
    assert (far.recall.item(), far.precision.item()) == (0.0, 0.0)


def test_recall_sums_over_annotators_and_precision_takes_any() -> None:
    edges = line(20).astype(np.float32)

    found = count_edges(
        edges, [line(20), line(5), line(20)], thresholds=thresholds_of(3), max_distance=0.01
    )

    assert found.recall.tolist() == pytest.approx([2 / 3] * 3)
    assert found.precision.tolist() == [1.0] * 3


def test_thresholds_choose_the_strong() -> None:
    edges = np.maximum(line(20) * 0.9, line(5) * 0.3).astype(np.float32)

    found = count_edges(edges, [line(20)], thresholds=np.array([0.2, 0.5, 0.95]))

    assert found.found.tolist() == [80, 40, 0]
    assert found.correct.tolist() == [40, 40, 0]


def test_figures_of_known_curves() -> None:
    # Image 1 is best at the first threshold, image 2 at the second.
    first = counts([80, 20], 100, [80, 20], [100, 20])
    second = counts([100, 90], 100, [100, 90], [300, 100])

    figures = summarize_edges([first, second], thresholds_of(2))

    # Best for each: recall (80 + 90) / 200, precision (80 + 90) / 200.
    assert figures["ois"] == pytest.approx(0.85)
    recalls, precisions = (np.array([0.9, 0.55]), np.array([180 / 400, 110 / 120]))
    fine = np.linspace(0, 1, 10001)
    between = [fine * v[1] + (1 - fine) * v[0] for v in (recalls, precisions)]
    best = np.max(2 * between[0] * between[1] / (between[0] + between[1]))
    assert figures["ods"] == pytest.approx(best, abs=1e-4)
    inside = np.arange(55, 91) / 100
    expected = np.interp(inside, recalls[::-1], precisions[::-1]).sum() / 100
    assert figures["ap"] == pytest.approx(expected)
    assert figures["r50"] == pytest.approx(np.interp(0.5, precisions, recalls))


def test_no_images_give_no_figures() -> None:
    assert set(summarize_edges([], thresholds_of(9)).values()) == {None}


def test_nothing_found_anywhere_is_zero() -> None:
    figures = summarize_edges([counts([0, 0], 50, [0, 0], [0, 0])], thresholds_of(2))

    assert figures["ods"] == figures["ois"] == figures["ap"] == figures["r50"] == 0.0


def test_without_half_precision_there_is_no_recall_at_it() -> None:
    # Precisions of 0.25, 0.2 and 0.1.
    figures = summarize_edges(
        [counts([5, 20, 40], 100, [5, 20, 40], [20, 100, 400])], thresholds_of(3)
    )

    assert figures["r50"] == 0.0
    assert figures["ap"] is not None
    assert figures["ap"] > 0.0


def test_perfect_edges_are_perfect() -> None:
    boundary = line(12)
    image = AnnotatedImage(
        "a",
        lambda: np.zeros((40, 40, 3), np.uint8),
        lambda: (Annotation((encode_mask(boundary),), boundary),),
    )

    found = evaluate_edges(
        [image, annotated("no borders", [disc(9, 9, 4)])],
        lambda _: boundary.astype(np.float32),
        num_thresholds=5,
        worst=3,
    )

    assert found.summary["ods"] == found.summary["ois"] == found.summary["r50"] == 1.0
    assert found.summary["images"] == 1
    assert "format bsds" in found.failed["no borders"]
    assert len(found.rows["threshold"]) == 5
    (case,) = found.worst
    assert [panel.shape for panel in case.panels(lambda pixels, _: pixels)] == [(40, 40, 3)] * 3


def test_edges_of_a_mask_lie_on_its_outer_border() -> None:
    strongest = np.zeros(SIZE, np.float32)

    add_mask_edges(strongest, np.where(disc(30, 20, 9), 9.0, -9.0).astype(np.float32))

    away = np.hypot(*(np.argwhere(strongest > 0) - [20, 30]).T)
    assert away.min() > 9
    assert away.max() < 11
    before = strongest.copy()
    add_mask_edges(strongest, np.full(SIZE, -1.0, np.float32))
    assert np.array_equal(before, strongest)


def test_ridge_of_a_wide_edge_stays() -> None:
    profile = np.exp(-((np.arange(40) - 17.0) ** 2) / 8)
    edges = np.tile(profile, (40, 1)).astype(np.float32)

    kept = suppress_beside_edges(edges)

    assert np.flatnonzero(kept[20]).tolist() == [17]
    assert kept[20, 17] == edges[20, 17]


def test_edges_of_a_model_are_scaled_and_along_its_discs() -> None:
    model = GrowingModel(radius=7, prompts_per_batch=3)

    edges = predict_edges(model, np.zeros((*SIZE, 3), np.uint8), points_per_side=2)

    assert edges.max() == 1.0
    assert edges.min() == 0.0
    rows, columns = np.nonzero(edges)
    centres = np.array([[y, x] for y in (10, 30) for x in (15, 45)])
    away = np.hypot(rows[:, None] - centres[:, 0], columns[:, None] - centres[:, 1]).min(axis=1)
    assert ((away > 6) & (away < 9)).all()
    assert model.num_encoded == 1


def test_model_that_finds_nothing_gives_no_edges() -> None:
    edges = predict_edges(
        GrowingModel(radius=-1), np.zeros((*SIZE, 3), np.uint8), points_per_side=2
    )

    assert not edges.any()
