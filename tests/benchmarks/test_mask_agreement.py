"""What counts as undecided: pixels within rounding, and the small regions that hang on them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amg_pipeline.amg.rle import encode_mask, rle_to_coco
from benchmarks.mask_agreement import (
    FoundMask,
    MaskAgreement,
    compare_masks,
    with_undecided,
)

SHAPE = (40, 60)


def found(mask: NDArray[np.bool_], undecided: tuple[tuple[int, int], ...] = ()) -> FoundMask:
    return FoundMask(
        counts=rle_to_coco(encode_mask(mask))["counts"],
        predicted_iou=0.9,
        stability_score=0.9,
        point=(1.0, 1.0),
        crop_box=(0, 0, SHAPE[1], SHAPE[0]),
        undecided=tuple(column * SHAPE[0] + row for row, column in undecided),
    )


def compare(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    *undecided: tuple[int, int],
    min_region_area: int = 0,
) -> MaskAgreement:
    return compare_masks(
        [found(first, undecided)],
        [found(second)],
        height=SHAPE[0],
        width=SHAPE[1],
        min_region_area=min_region_area,
    )


@pytest.fixture
def body() -> NDArray[np.bool_]:
    """A large region; a small one beside it hangs on the pixel between them."""
    mask = np.zeros(SHAPE, bool)
    mask[:, :30] = True
    mask[10:15, 31:41] = True
    return mask


def test_a_pixel_within_rounding_is_undecided_and_another_is_not(body: NDArray[np.bool_]) -> None:
    other = body.copy()
    other[0, 50] = True
    assert compare(body, other, (0, 50)).decided_pixels == 0
    assert compare(body, other, (0, 51)).decided_pixels == 1
    assert compare(body, other, (0, 50), (0, 51)).differing_pixels == 1


@pytest.mark.parametrize(("min_region_area", "decided"), [(0, 50), (50, 50), (51, 0)])
def test_a_small_region_hangs_on_an_undecided_pixel(
    body: NDArray[np.bool_], min_region_area: int, decided: int
) -> None:
    joined, removed = body.copy(), body.copy()
    joined[12, 30] = True
    removed[10:15, 31:41] = False
    agreement = compare(joined, removed, (12, 30), min_region_area=min_region_area)
    assert agreement.differing_pixels == 51
    assert agreement.decided_pixels == decided


def test_what_was_found_of_differing_masks_can_be_written_down(body: NDArray[np.bool_]) -> None:
    other = body.copy()
    other[0, 50] = True
    found = asdict(compare(body, other, (0, 50)))
    assert json.loads(json.dumps(found)) == found


def test_a_small_region_that_hangs_on_nothing_is_decided(body: NDArray[np.bool_]) -> None:
    removed = body.copy()
    removed[10:15, 31:41] = False
    assert compare(body, removed, (30, 30), min_region_area=100).decided_pixels == 50


@pytest.mark.parametrize(("borderline", "faults"), [(0, 1), (1, 1), (2, 0)])
def test_a_stability_score_may_differ_by_its_borderline_pixels(
    body: NDArray[np.bool_], borderline: int, faults: int
) -> None:
    expected = replace(found(body), borderline=borderline)
    other = replace(expected, stability_score=expected.stability_score - 1.5 / body.sum())
    agreement = compare_masks([expected], [other], height=SHAPE[0], width=SHAPE[1])
    assert agreement.score_faults == faults


def test_a_predicted_iou_may_not(body: NDArray[np.bool_]) -> None:
    expected = replace(found(body), borderline=1000)
    other = replace(expected, predicted_iou=expected.predicted_iou + 2e-4)
    agreement = compare_masks([expected], [other], height=SHAPE[0], width=SHAPE[1])
    assert agreement.score_faults == 1


def test_borderline_pixels_are_those_near_a_stability_threshold() -> None:
    logits = np.full((1, 3, *SHAPE), 5.0, np.float32)
    logits[0, 1, 0, :5] = [1.0004, 0.9996, -1.0, 0.0, 1.01]

    def predict(crop: NDArray[np.uint8], points: NDArray[np.float64]) -> tuple[Any, Any]:
        assert crop.shape[:2] == SHAPE
        assert points.shape == (1, 2)
        return logits, np.array([[0.1, 0.9, 0.2]], np.float32)

    mask = found(logits[0, 1] > 0)
    known = with_undecided([mask], np.zeros((*SHAPE, 3), np.uint8), predict)[0]
    assert known.borderline == 3
    assert known.undecided == (3 * SHAPE[0],)
