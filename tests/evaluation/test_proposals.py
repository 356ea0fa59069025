from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from amg_pipeline.amg.rle import encode_mask, rle_to_coco
from amg_pipeline.errors import ImageDecodeError
from amg_pipeline.evaluation.annotated import AnnotatedImage
from amg_pipeline.evaluation.proposals import (
    SIZES,
    Proposal,
    count_hits,
    evaluate_proposals,
    rank_records,
)
from amg_pipeline.records import CropBox, MaskRecord, Rle
from tests.evaluation.discs import annotated, disc

SIZE = (150, 200)


def masks(rng: np.random.Generator, count: int) -> list[np.ndarray]:
    """Discs small, medium and large."""
    return [
        disc(
            *rng.uniform([0, 0], [200, 150]), rng.choice([8, 30, 70]) * rng.uniform(0.7, 1.3), SIZE
        )
        for _ in range(count)
    ]


def shifted(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    return np.roll(mask, rng.integers(-6, 7, 2), axis=(0, 1))


def whole_evaluation(
    segments: list[list[Rle]], proposals: list[list[Proposal]], limits: list[int]
) -> np.ndarray:
    """Average recall of all images at once as pycocotools computes it, `(sizes, limits)`."""
    truth, found = COCO(), COCO()
    for coco, entries in (
        (truth, [[(s, 0.0) for s in image] for image in segments]),
        (found, [[(p.mask, p.score) for p in image] for image in proposals]),
    ):
        flat = [(i, mask, score) for i, image in enumerate(entries) for mask, score in image]
        coco.dataset = {
            "images": [
                {"id": i, "height": SIZE[0], "width": SIZE[1]} for i in range(len(segments))
            ],
            "categories": [{"id": 1}],
            "annotations": [
                {
                    "id": number,
                    "image_id": i,
                    "category_id": 1,
                    "iscrowd": 0,
                    "area": mask.area,
                    "segmentation": rle_to_coco(mask),
                    "score": score,
                }
                for number, (i, mask, score) in enumerate(flat, start=1)
            ],
        }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, "segm")
        evaluation.params.useCats = 0
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["recall"][:, 0].mean(axis=0)


def test_recall_is_that_of_pycocotools_over_the_whole_data_set() -> None:
    rng = np.random.default_rng(4)
    limits = [2, 5, 20]
    truths = [masks(rng, count) for count in (6, 1, 9)]
    proposals = [
        [
            Proposal(encode_mask(mask), float(rng.integers(0, 20)) / 20)
            for mask in [*(shifted(rng, m) for m in truth), *masks(rng, 4), *masks(rng, 12)]
            if mask.any()
        ]
        for truth in truths
    ]
    images = [annotated(str(i), truth, size=SIZE) for i, truth in enumerate(truths)]
    turn = iter(proposals)

    found = evaluate_proposals(images, lambda _: next(turn), limits=limits)

    segments = [[encode_mask(m) for m in truth] for truth in truths]
    # The order of equal scores decides which of them are the first few.
    ranked = [sorted(some, key=lambda proposal: -proposal.score) for some in proposals]
    expected = whole_evaluation(segments, ranked, limits)
    recalls = found.summary["average_recall"]
    for i, limit in enumerate(limits):
        for size, name in enumerate(SIZES):
            assert recalls[f"at_{limit}"][name] == pytest.approx(expected[size, i])
    assert 0 < recalls["at_2"]["all"] < recalls["at_20"]["all"] < 1
    assert len(found.rows["image_id"]) == 3


def test_perfect_and_no_proposals() -> None:
    segments = [encode_mask(disc(30, 30, 20, SIZE)), encode_mask(disc(120, 75, 60, SIZE))]

    perfect = count_hits(segments, [Proposal(segment, 1.0) for segment in segments])
    none = count_hits(segments, [])

    assert (perfect.hits[:, 0] == 2).all()
    assert perfect.segments.tolist() == [2, 0, 1, 1]
    assert not none.hits.any()


def test_the_best_scored_come_first() -> None:
    truth = disc(30, 30, 20, SIZE)
    proposals = [
        Proposal(encode_mask(disc(150, 100, 9, SIZE)), 0.5),
        Proposal(encode_mask(truth), 0.9),
    ]

    found = evaluate_proposals(
        [annotated("a", [truth], size=SIZE)], lambda _: proposals, limits=[1]
    )

    assert found.summary["average_recall"]["at_1"]["all"] == 1.0
    assert found.summary["average_recall"]["at_1"]["large"] is None


def test_records_are_ranked_by_the_mean_of_both_scores() -> None:
    def record(mask: np.ndarray, iou: float, stability: float) -> MaskRecord:
        crop = CropBox(0, 0, 200, 150, 0)
        return MaskRecord(encode_mask(mask), (0, 0, 1, 1), iou, stability, (1.0, 1.0), crop)

    full = disc(30, 30, 20, SIZE)
    ranked = rank_records([record(full, 0.5, 0.9), record(np.zeros(SIZE, bool), 0.9, np.nan)])

    assert [proposal.score for proposal in ranked] == [pytest.approx(0.7)]


def test_images_without_segments_or_pixels() -> None:
    def fail() -> np.ndarray:
        raise ImageDecodeError("broken")

    images = [annotated("empty", [], size=SIZE), AnnotatedImage("bad", fail, lambda: ())]
    counted: list[int] = []

    found = evaluate_proposals(images, lambda _: [], on_image=counted.append)

    assert found.summary["average_recall"]["at_10"]["all"] is None
    assert np.isnan(found.rows["ar_at_10"]).tolist() == [True]
    assert found.failed == {"bad": "broken"}
    assert counted == [0, 0]


def test_worst_image_has_its_segments_and_its_best_proposals() -> None:
    truth = disc(30, 30, 20, SIZE)
    images = [annotated(name, [truth], size=SIZE) for name in ("good", "bad")]
    turn = iter([[Proposal(encode_mask(truth), 1.0)], []])

    found = evaluate_proposals(images, lambda _: next(turn), worst=1)

    (case,) = found.worst
    assert case.image_id == "bad"
    shown = case.panels(lambda pixels, masks: np.full(1, len(masks), np.uint8))
    assert [panel.item() for panel in shown] == [1, 0]
