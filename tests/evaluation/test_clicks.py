from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from amg_pipeline.amg.rle import decode_mask, encode_mask
from amg_pipeline.errors import ImageDecodeError
from amg_pipeline.evaluation.annotated import AnnotatedImage
from amg_pipeline.evaluation.clicking import click_segments, mask_iou, most_inner_point
from amg_pipeline.evaluation.clicks import evaluate_clicks
from tests.evaluation.discs import SIZE, GrowingModel, annotated, disc


def _depth(region: np.ndarray, x: int, y: int) -> float:
    """Distance to the nearest pixel outside, beyond the image included, the plain way."""
    padded = np.pad(region, 1)
    rows, columns = np.nonzero(~padded)
    return float(np.hypot(columns - x - 1, rows - y - 1).min())


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any))
def test_most_inner_point_is_as_deep_as_any_pixel(region: np.ndarray) -> None:
    x, y, depth = most_inner_point(region)

    depths = {(c, r): _depth(region, c, r) for r, c in np.argwhere(region)}
    assert region[y, x]
    assert depth == pytest.approx(depths[x, y])
    assert depth == pytest.approx(max(depths.values()))


def test_image_border_is_outside() -> None:
    region = np.ones((5, 9), bool)

    x, y, depth = most_inner_point(region)

    assert y == 2
    assert depth == 3.0
    assert x == 2  # the first of the middle row that is as deep


def test_first_click_is_the_most_inner_point_and_further_ones_correct() -> None:
    # A bar twice as long as the model's disc: the second click must go to what is missing.
    truth = np.zeros(SIZE, bool)
    truth[10:21, 5:50] = True
    model = GrowingModel(radius=8)

    clicked = click_segments(
        model, None, [encode_mask(truth)], clicks=3, placement="center", seeds=[(0,)]
    )

    first, second, _ = clicked.points[0]
    assert tuple(first) == (10, 15)
    assert truth[second[1], second[0]]
    assert second[0] > first[0] + 8
    assert clicked.labels[0].tolist()[:2] == [1, 1]
    assert (np.diff(clicked.top_iou[0]) > 0).all()


def test_superfluous_part_gets_a_background_click() -> None:
    truth = disc(30, 20, 4)

    clicked = click_segments(
        GrowingModel(radius=9), None, [encode_mask(truth)], clicks=2, placement="center", seeds=[()]
    )

    x, y = clicked.points[0, 1]
    assert clicked.labels[0].tolist() == [1, 0]
    assert disc(30, 20, 9)[y, x]
    assert not truth[y, x]


def test_exact_mask_gets_no_further_click_and_keeps_its_numbers() -> None:
    truth = disc(30, 20, 6)

    clicked = click_segments(
        GrowingModel(radius=6), None, [encode_mask(truth)], clicks=3, placement="center", seeds=[()]
    )

    assert clicked.top_iou.tolist() == [[1.0, 1.0, 1.0]]
    assert np.unique(clicked.points[0], axis=0).tolist() == [[30, 20]]
    assert np.array_equal(decode_mask(clicked.masks[0]), truth)


def test_prompts_are_batched_and_earlier_logits_go_back_in() -> None:
    segments = [encode_mask(disc(10 + i, 20, 5)) for i in range(6)]
    model = GrowingModel(radius=9, prompts_per_batch=4)

    click_segments(model, None, segments, clicks=2, placement="center", seeds=[()] * 6)

    assert model.calls == [(4, 1, False), (4, 2, True), (2, 1, False), (2, 2, True)]


def test_best_of_three_may_be_another_than_the_top_scored() -> None:
    class Modest(GrowingModel):
        def decode(self, *arguments):  # type: ignore[no-untyped-def]
            outputs = super().decode(*arguments)
            outputs.predicted_iou[:] = [0.9, 0.5, 0.1]
            return outputs

    clicked = click_segments(
        Modest(radius=6),
        None,
        [encode_mask(disc(30, 20, 6))],
        clicks=1,
        placement="center",
        seeds=[()],
    )

    assert clicked.best_iou.item() == 1.0
    assert clicked.top_iou.item() == 0.0


def test_random_clicks_depend_on_seed_and_image_alone() -> None:
    images = [annotated(name, [disc(20, 20, 9), disc(45, 20, 8)]) for name in "ab"]

    def points(chosen: list[AnnotatedImage], seed: int) -> list[tuple[int, int]]:
        rows = evaluate_clicks(
            chosen, GrowingModel(radius=4), clicks=2, placements=["random"], seed=seed
        ).rows
        here = rows["image_id"] == "b"
        return list(zip(rows["x"][here].tolist(), rows["y"][here].tolist(), strict=True))

    assert points(images, 0) == points(images[1:], 0)
    assert points(images, 0) != points(images, 1)


def test_evaluation_averages_over_segments() -> None:
    images = [
        annotated("a", [disc(20, 20, 6)]),
        annotated("b", [disc(15, 20, 6), disc(45, 20, 12)], [disc(30, 20, 3)]),
    ]
    counted: list[int] = []
    model = GrowingModel(radius=6)

    found = evaluate_clicks(
        images, model, clicks=2, placements=["center"], worst=1, on_image=counted.append
    )

    small = mask_iou(disc(45, 20, 6), disc(45, 20, 12))
    first = found.summary["placements"]["center"]["clicks"][0]
    assert first["top_scored"] == pytest.approx((2 + small) / 3)
    assert found.summary["segments"] == 3
    assert len(found.rows["click"]) == 6
    assert counted == [1, 2]
    assert model.num_encoded == 2
    (worst,) = found.worst
    assert (worst.image_id, worst.name) == ("b", "segment 1")
    drawn = worst.panels(lambda pixels, masks: np.full(3, len(masks), np.uint8))
    assert [panel.tolist() for panel in drawn] == [[1, 1, 1]] * 2


def test_all_annotators_and_least_area() -> None:
    images = [annotated("a", [disc(20, 20, 2)], [disc(45, 20, 12)])]

    def count(**settings: object) -> int:
        found = evaluate_clicks(images, GrowingModel(radius=4), clicks=1, **settings)  # type: ignore[arg-type]
        return int(found.summary["segments"])

    assert count() == 1
    assert count(annotator="all") == 2
    assert count(annotator="all", min_area_fraction=0.05) == 1
    assert count(min_area_fraction=0.05) == 0


def test_no_segments_give_no_figures() -> None:
    found = evaluate_clicks([annotated("a", [])], GrowingModel(radius=4), clicks=1)

    line = found.summary["placements"]["center"]["clicks"][0]
    assert line == {"click": 1, "best_of_three": None, "top_scored": None}
    assert found.summary["placements"]["center"]["spearman_of_predicted_iou"] is None


def test_unreadable_image_is_named_and_the_others_are_measured() -> None:
    def fail() -> np.ndarray:
        raise ImageDecodeError("broken")

    images = [
        AnnotatedImage("bad", fail, lambda: ()),
        annotated("other size", [disc(5, 5, 3, (10, 10))]),
        annotated("good", [disc(20, 20, 6)]),
    ]

    found = evaluate_clicks(images, GrowingModel(radius=6), clicks=1, placements=["center"])

    assert found.summary["images"] == 1
    assert found.failed["bad"] == "broken"
    assert "10 rows and 10 columns" in found.failed["other size"]
