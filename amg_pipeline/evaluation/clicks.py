"""How well a model segments what a person clicks at: mean IoU after one to several clicks.

The first click lies in the segment. Each further one lies where the mask so far is wrong: on the
segment's missing part as foreground, on what is too much as background. "center" puts clicks at the
most inner point of the region, "random" anywhere in it.

Two figures are given for each number of clicks: the IoU of the output that the model itself scores
highest, and of the best of its three, which only an oracle could choose. Further clicks correct,
and the next prompt's logits are, those of the top-scored output, as in interactive use.

Source:
    Kirillov et al. 2023 (arXiv:2304.02643), section 7.1 and appendix D.1.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from amg_pipeline.errors import ImageError
from amg_pipeline.evaluation.annotated import AnnotatedImage, choose_segments
from amg_pipeline.evaluation.clicking import ClickedSegments, Placement, click_segments
from amg_pipeline.evaluation.point_model import FOREGROUND, PointModel
from amg_pipeline.evaluation.results import (
    Case,
    DrawMasks,
    Evaluation,
    Picture,
    Rows,
    Table,
    WorstCases,
    join_rows,
    mean_or_none,
)
from amg_pipeline.records import Rle

_EMPTY: Rows = {
    "image_id": np.array([], np.str_),
    "placement": np.array([], np.str_),
    "segment": np.array([], np.int32),
    "area": np.array([], np.int64),
    "click": np.array([], np.int32),
    "x": np.array([], np.int32),
    "y": np.array([], np.int32),
    "is_foreground": np.array([], np.bool_),
    "best_iou": np.array([], np.float32),
    "top_iou": np.array([], np.float32),
    **{f"iou_{i}": np.array([], np.float32) for i in range(3)},
    **{f"predicted_iou_{i}": np.array([], np.float32) for i in range(3)},
}


def evaluate_clicks(
    images: Iterable[AnnotatedImage],
    model: PointModel,
    *,
    clicks: int = 5,
    placements: Sequence[Placement] = ("center", "random"),
    seed: int = 0,
    annotator: str = "first",
    min_area_fraction: float = 0.0,
    worst: int = 0,
    on_image: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Measure mean IoU after 1 to `clicks` clicks, over all segments of all images.

    Args:
        images: What to measure on.
        model: What is measured.
        clicks: Clicks at each segment.
        placements: Where clicks fall; each is measured by itself.
        seed: Of the random clicks; the same gives the same clicks, whatever images come before.
        annotator: `"first"`, or `"all"` for the segments of each.
        min_area_fraction: Segments of a smaller share of the image are left out.
        worst: How many of the worst segments to keep.
        on_image: Called with the number of segments after each image.

    Returns:
        A row per placement, segment and click.
    """
    parts: list[Rows] = []
    cases = WorstCases(worst)
    failed: dict[str, str] = {}
    measured = 0
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
        if segments:
            embedding = model.encode(pixels)
            number = zlib.crc32(image.image_id.encode("utf-8", "surrogateescape"))
            for placement in placements:
                clicked = click_segments(
                    model,
                    embedding,
                    segments,
                    clicks=clicks,
                    placement=placement,
                    seeds=[(seed, number, i) for i in range(len(segments))],
                )
                parts.append(_rows_of(image.image_id, placement, segments, clicked))
                if placement == placements[0]:
                    _add_cases(cases, image, segments, clicked)
        measured += 1
        on_image(len(segments))
    rows = join_rows(parts, _EMPTY)
    return Evaluation(
        summary={
            "images": measured,
            "segments": int(np.count_nonzero(rows["click"] == 1)) // max(len(placements), 1),
            "placements": {name: _summary_of(rows, name, clicks) for name in placements},
        },
        tables=tuple(_table_of(rows, name, clicks) for name in placements),
        rows=rows,
        worst=cases.worst_first(),
        failed=failed,
    )


def _rows_of(
    image_id: str, placement: Placement, segments: Sequence[Rle], clicked: ClickedSegments
) -> Rows:
    count, clicks = clicked.labels.shape
    total = count * clicks
    return {
        "image_id": np.full(total, image_id),
        "placement": np.full(total, placement),
        "segment": np.repeat(np.arange(count, dtype=np.int32), clicks),
        "area": np.repeat(np.array([segment.area for segment in segments], np.int64), clicks),
        "click": np.tile(np.arange(1, clicks + 1, dtype=np.int32), count),
        "x": clicked.points[..., 0].ravel().astype(np.int32),
        "y": clicked.points[..., 1].ravel().astype(np.int32),
        "is_foreground": clicked.labels.ravel() == FOREGROUND,
        "best_iou": clicked.best_iou.ravel(),
        "top_iou": clicked.top_iou.ravel(),
        **{f"iou_{i}": clicked.ious[..., i].ravel() for i in range(3)},
        **{f"predicted_iou_{i}": clicked.predicted_iou[..., i].ravel() for i in range(3)},
    }


def _add_cases(
    cases: WorstCases, image: AnnotatedImage, segments: Sequence[Rle], clicked: ClickedSegments
) -> None:
    for i, (segment, mask) in enumerate(zip(segments, clicked.masks, strict=True)):

        def panels(draw: DrawMasks, truth: Rle = segment, found: Rle = mask) -> list[Picture]:
            pixels = image.read_pixels()
            return [draw(pixels, [truth]), draw(pixels, [found])]

        iou = float(clicked.top_iou[i, -1])
        cases.add(Case(image.image_id, f"segment {i}", iou, panels))


def _summary_of(rows: Rows, placement: Placement, clicks: int) -> dict[str, Any]:
    here = rows["placement"] == placement
    return {
        "clicks": [
            {
                "click": click,
                "best_of_three": mean_or_none(rows["best_iou"][here & (rows["click"] == click)]),
                "top_scored": mean_or_none(rows["top_iou"][here & (rows["click"] == click)]),
            }
            for click in range(1, clicks + 1)
        ],
        "spearman_of_predicted_iou": score_correlation(rows, here & (rows["click"] == 1)),
    }


def score_correlation(rows: Rows, chosen: NDArray[np.bool_]) -> float | None:
    """Correlate predicted with true IoU by rank, over all three outputs of the chosen rows.

    Returns:
        Spearman's coefficient; None where there is nothing to rank.
    """
    true = np.concatenate([rows[f"iou_{i}"][chosen] for i in range(3)])
    predicted = np.concatenate([rows[f"predicted_iou_{i}"][chosen] for i in range(3)])
    if len(np.unique(true)) < 2 or len(np.unique(predicted)) < 2:
        return None
    return float(stats.spearmanr(predicted, true).statistic)


def _table_of(rows: Rows, placement: Placement, clicks: int) -> Table:
    summary = _summary_of(rows, placement, clicks)
    return Table(
        title=f"Mean IoU, clicks at {placement}",
        header=("clicks", "best of three", "top scored"),
        rows=tuple(
            (line["click"], line["best_of_three"], line["top_scored"]) for line in summary["clicks"]
        ),
    )
