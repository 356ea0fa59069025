"""How many of people's segments are among a model's masks: average recall at 10, 100 and 1000.

Masks are matched by pycocotools. An image at a time, because matches never cross images: recall of
the whole is the sum of hits over the sum of segments, and memory does not grow with the data set.

Source:
    Kirillov et al. 2023 (arXiv:2304.02643), section 7.3 and appendix D.3: masks of a grid of
    points, no filter by scores, non-maximum suppression at 0.9, ranked by the mean of predicted IoU
    and stability. Sizes are COCO's.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from amg_pipeline.amg.rle import rle_to_coco
from amg_pipeline.errors import ImageError
from amg_pipeline.evaluation.annotated import AnnotatedImage, choose_segments
from amg_pipeline.evaluation.results import (
    Case,
    DrawMasks,
    Evaluation,
    Picture,
    Rows,
    Table,
    WorstCases,
    join_rows,
)
from amg_pipeline.records import MaskRecord, Rle

#: COCO's, in pixels: up to 32 x 32, up to 96 x 96, and above.
SIZES = ("all", "small", "medium", "large")
LIMITS = (10, 100, 1000)
#: Masks of a picture of a bad case.
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Proposal:
    """A mask that may be a segment.

    Attributes:
        mask: The mask in the image frame.
        score: The higher, the earlier it is taken.
    """

    mask: Rle
    score: float


def rank_records(records: Iterable[MaskRecord]) -> list[Proposal]:
    """Rank generated masks by the mean of predicted IoU and stability; empty ones are left out."""
    return [
        Proposal(record.rle, (record.predicted_iou + record.stability_score) / 2)
        for record in records
        if record.rle.area
    ]


@dataclass(frozen=True, slots=True)
class Recalls:
    """Segments that were found in an image.

    Attributes:
        hits: By IoU threshold, size and limit, int64 `(10, 4, limits)`.
        segments: By size, int64 `(4,)`.
    """

    hits: NDArray[np.int64]
    segments: NDArray[np.int64]


def count_hits(
    segments: Sequence[Rle], proposals: Sequence[Proposal], *, limits: Sequence[int] = LIMITS
) -> Recalls:
    """Match proposals with segments at IoU 0.5, 0.55 to 0.95.

    Args:
        segments: People's segments of one image, at least one.
        proposals: Masks of the same image.
        limits: How many of the best proposals are taken, ascending.
    """
    truth = _coco([_entry(segment) for segment in segments], segments[0])
    found = _coco([_entry(p.mask, score=p.score) for p in proposals], segments[0])
    evaluation = COCOeval(truth, found, "segm")
    evaluation.params.useCats = 0
    evaluation.params.maxDets = list(limits)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.evaluate()
    hits = np.zeros((len(evaluation.params.iouThrs), len(SIZES), len(limits)), np.int64)
    counts = np.zeros(len(SIZES), np.int64)
    for size, one in enumerate(evaluation.evalImgs):
        counts[size] = np.count_nonzero(np.asarray(one["gtIgnore"]) == 0)
        is_hit = (one["dtMatches"] > 0) & ~one["dtIgnore"].astype(bool)
        for i, limit in enumerate(limits):
            hits[:, size, i] = np.count_nonzero(is_hit[:, :limit], axis=1)
    return Recalls(hits, counts)


def _entry(mask: Rle, **more: float) -> dict[str, Any]:
    segmentation = rle_to_coco(mask)
    return {"segmentation": segmentation, "area": mask.area, "iscrowd": 0, **more}


def _coco(entries: Sequence[dict[str, Any]], frame: Rle) -> COCO:
    coco = COCO()
    coco.dataset = {
        "images": [{"id": 1, "height": frame.height, "width": frame.width}],
        "categories": [{"id": 1, "name": "object"}],
        # Numbers from 1: COCO takes an annotation 0 for none.
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, **entry}
            for number, entry in enumerate(entries, start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def evaluate_proposals(
    images: Iterable[AnnotatedImage],
    propose: Callable[[NDArray[np.uint8]], Sequence[Proposal]],
    *,
    limits: Sequence[int] = LIMITS,
    annotator: str = "first",
    min_area_fraction: float = 0.0,
    worst: int = 0,
    on_image: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Measure average recall over IoU 0.5 to 0.95, by size and number of proposals.

    Args:
        images: What to measure on.
        propose: From an image to proposals.
        limits: How many of the best proposals are taken, ascending.
        annotator: `"first"`, or `"all"` for the segments of each.
        min_area_fraction: Segments of a smaller share of the image are left out.
        worst: How many of the worst images to keep.
        on_image: Called with the number of proposals after each image.

    Returns:
        A row per image.
    """
    parts: list[Rows] = []
    failed: dict[str, str] = {}
    cases = WorstCases(worst)
    total = Recalls(
        np.zeros((10, len(SIZES), len(limits)), np.int64), np.zeros(len(SIZES), np.int64)
    )
    for image in images:
        try:
            pixels, annotations = image.read()
        except ImageError as error:
            failed[image.image_id] = str(error)
            on_image(0)
            continue
        segments = choose_segments(
            annotations, annotator=annotator, min_area_fraction=min_area_fraction
        )
        proposals = sorted(propose(pixels), key=lambda proposal: -proposal.score)
        one = Recalls(np.zeros_like(total.hits), np.zeros_like(total.segments))
        if segments:
            one = count_hits(segments, proposals, limits=limits)
            cases.add(_case_of(image, segments, proposals, _recall(one, 0, len(limits) - 1) or 0.0))
        total = Recalls(total.hits + one.hits, total.segments + one.segments)
        parts.append(_rows_of(image.image_id, len(proposals), one, limits))
        on_image(len(proposals))
    rows = join_rows(parts, _empty_rows(limits))
    summary = {
        "images": len(parts),
        "segments": {name: int(n) for name, n in zip(SIZES, total.segments, strict=True)},
        "proposals_per_image": float(rows["proposals"].mean()) if parts else None,
        "average_recall": {
            f"at_{limit}": {name: _recall(total, size, i) for size, name in enumerate(SIZES)}
            for i, limit in enumerate(limits)
        },
    }
    return Evaluation(
        summary=summary,
        tables=(
            Table(
                title="Average recall, mask IoU 0.5 to 0.95",
                header=("proposals", *SIZES),
                rows=tuple(
                    (limit, *(_recall(total, size, i) for size in range(len(SIZES))))
                    for i, limit in enumerate(limits)
                ),
            ),
        ),
        rows=rows,
        worst=cases.worst_first(),
        failed=failed,
    )


def _recall(recalls: Recalls, size: int, limit: int) -> float | None:
    """Average over thresholds; None where there is no segment of the size."""
    if recalls.segments[size] == 0:
        return None
    return float(recalls.hits[:, size, limit].mean() / recalls.segments[size])


def _empty_rows(limits: Sequence[int]) -> Rows:
    return {
        "image_id": np.array([], np.str_),
        "proposals": np.array([], np.int32),
        "segments": np.array([], np.int32),
        **{f"ar_at_{limit}": np.array([], np.float32) for limit in limits},
    }


def _rows_of(image_id: str, proposals: int, one: Recalls, limits: Sequence[int]) -> Rows:
    """Make the row of an image; without segments its recalls are NaN."""
    recalls = [_recall(one, 0, i) for i in range(len(limits))]
    return {
        "image_id": np.array([image_id]),
        "proposals": np.array([proposals], np.int32),
        "segments": one.segments[:1].astype(np.int32),
        **{
            f"ar_at_{limit}": np.array([np.nan if recall is None else recall], np.float32)
            for limit, recall in zip(limits, recalls, strict=True)
        },
    }


def _case_of(
    image: AnnotatedImage, segments: Sequence[Rle], proposals: Sequence[Proposal], recall: float
) -> Case:
    best = [proposal.mask for proposal in proposals[:_SHOWN]]

    def panels(draw: DrawMasks) -> list[Picture]:
        pixels = image.read_pixels()
        return [draw(pixels, segments), draw(pixels, best)]

    return Case(image.image_id, f"{len(segments)} segments", recall, panels)
