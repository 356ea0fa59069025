from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.amg.rle import encode_mask, rle_to_coco
from amg_pipeline.evaluation.agreement import (
    compare_images,
    evaluate_agreement,
    pair_images,
    panoptic_quality,
)
from amg_pipeline.evaluation.clicking import mask_iou
from amg_pipeline.storage.image_masks import ImageMasks
from tests.evaluation.discs import SIZE, disc


def image(
    image_id: str,
    masks: Sequence[np.ndarray] = (),
    *,
    status: str = "ok",
    size: tuple[int, int] = SIZE,
) -> ImageMasks:
    count = len(masks)
    return ImageMasks(
        image_id=image_id,
        uri=f"/{image_id}",
        status=status,
        width=size[1],
        height=size[0],
        counts=[rle_to_coco(encode_mask(mask))["counts"] for mask in masks],
        bbox_xywh=np.zeros((count, 4), np.float32),
        area=np.array([mask.sum() for mask in masks], np.int64),
        predicted_iou=np.zeros(count, np.float32),
        stability_score=np.zeros(count, np.float32),
        point_coords=np.zeros((count, 2)),
        crop_box_xywh=np.zeros((count, 4), np.int32),
    )


def evaluate(first: list[ImageMasks], second: list[ImageMasks], **more: object):  # type: ignore[no-untyped-def]
    return evaluate_agreement(
        first, second, read_pixels=lambda i: np.zeros((i.height, i.width, 3), np.uint8), **more
    )


CIRCLES = st.lists(
    st.tuples(st.integers(0, 59), st.integers(0, 39), st.integers(1, 15)), min_size=1, max_size=4
)


@given(CIRCLES, CIRCLES)
def test_pairs_are_the_best_of_all(
    first: list[tuple[int, int, int]], second: list[tuple[int, int, int]]
) -> None:
    some, other = [disc(*c) for c in first], [disc(*c) for c in second]

    found = compare_images(image("a", some), image("a", other))

    short, long = sorted([some, other], key=len)
    best = max(
        sum(mask_iou(m, o) for m, o in zip(short, chosen, strict=True))
        for chosen in permutations(long, len(short))
    )
    assert found.ious.sum() == pytest.approx(best)
    assert (found.ious > 0).all()


def test_a_run_agrees_with_itself() -> None:
    run = [image("a", [disc(10, 10, 5), disc(40, 20, 9)]), image("b"), image("c", [disc(9, 9, 3)])]

    found = evaluate(run, list(reversed(run)))

    summary = found.summary
    assert summary["images"] == {"both": 3, "first": 0, "second": 0, "neither": 0, "other size": 0}
    assert summary["count_difference"] == {
        "mean": 0.0,
        "mean_absolute": 0.0,
        "images_with_equal_count": 1.0,
    }
    for name in ("identical_share", "matched_iou", "share_at_iou_0.9", "panoptic_quality"):
        assert summary[name] == 1.0
    assert summary["segmentation_quality"] == summary["recognition_quality"] == 1.0


def test_figures_of_a_known_difference() -> None:
    large, nearly = disc(30, 20, 12), disc(30, 20, 11)
    iou = mask_iou(large, nearly)

    found = evaluate(
        [image("a", [large, disc(5, 5, 3)])], [image("a", [disc(55, 35, 3), nearly])], worst=1
    )

    summary = found.summary
    assert 0.5 < iou < 0.9
    assert summary["matched_iou"] == pytest.approx(iou)
    assert summary["share_at_iou_0.9"] == 0.0
    assert summary["panoptic_quality"] == pytest.approx(iou / (1 + 0.5 + 0.5))
    assert summary["segmentation_quality"] == pytest.approx(iou)
    assert summary["recognition_quality"] == pytest.approx(0.5)
    assert summary["count_difference"]["mean"] == 0.0
    (case,) = found.worst
    shown = case.panels(lambda pixels, masks: np.full(1, len(masks), np.uint8))
    assert [panel.item() for panel in shown] == [2, 2]


def test_images_that_one_run_lacks_are_counted_apart() -> None:
    first = [
        image("a", [disc(9, 9, 3)]),
        image("b", [disc(9, 9, 3)]),
        image("c", status="decode_error"),
        image("d", [disc(9, 9, 3)]),
        image("without masks"),
    ]
    second = [
        image("c", status="decode_error"),
        image("b", status="crash"),
        image("d", [disc(5, 5, 3, (20, 20))], size=(20, 20)),
        image("e"),
    ]

    found = evaluate(first, second)

    assert found.summary["images"] == {
        "both": 0,
        "first": 3,
        "second": 1,
        "neither": 1,
        "other size": 1,
    }
    assert found.summary["panoptic_quality"] is None
    assert sorted(found.rows["image_id"].tolist()) == ["a", "b", "c", "d", "e", "without masks"]


def test_pairs_come_as_soon_as_both_are_read() -> None:
    read: list[str] = []

    def run(name: str, ids: str):  # type: ignore[no-untyped-def]
        for image_id in ids:
            read.append(name + image_id)
            yield image(image_id)

    pairs = pair_images(run("1", "abc"), run("2", "abc"))

    assert [one.image_id for one in next(pairs) if one is not None] == ["a", "a"]
    assert read == ["1a", "2a"]


def test_no_masks_agree() -> None:
    assert panoptic_quality(0.0, 0) == 1.0
    assert evaluate([image("a")], [image("a")]).summary["panoptic_quality"] == 1.0
    assert evaluate([], []).summary["matched_iou"] is None
