"""How well a model segments what a person clicks at: mean IoU after one to several clicks.

The first click lies in the segment. Each further one lies where the mask so far is wrong: on the
segment's missing part as foreground, on what is too much as background. "center" puts clicks at the
most inner point of the region, "random" anywhere in it.

Two figures are given for each number of clicks: the IoU of the output that the model itself scores
highest, and of the best of its three, which only an oracle could choose. Further clicks correct,
and the next prompt's logits are, those of the top-scored output, as in interactive use.

Source:
    Kirillov et al. 2023 (arXiv:2304.02643), section 7.1 and appendix D.1. The most inner point is
    that of the interior distance transform; of missing and superfluous regions the one with the
    deepest point is corrected, as the click protocol of RITM (Sofiiuk et al. 2021) has it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from amg_pipeline.amg.rle import decode_mask, encode_mask
from amg_pipeline.errors import ImageError
from amg_pipeline.evaluation.annotated import AnnotatedImage, choose_segments
from amg_pipeline.evaluation.point_model import BACKGROUND, FOREGROUND, PointModel
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

Placement = Literal["center", "random"]

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


@dataclass(frozen=True, slots=True)
class ClickedSegments:
    """What came of clicking at `N` segments of one image, `K` clicks each.

    A segment that was met exactly gets no further clicks: its numbers stay.

    Attributes:
        points: XY of the clicks in pixels, int64 `(N, K, 2)`.
        labels: `FOREGROUND` or `BACKGROUND`, int32 `(N, K)`.
        ious: IoU of the three outputs with the segment, float32 `(N, K, 3)`.
        predicted_iou: What the model made of them, float32 `(N, K, 3)`.
        masks: The top-scored masks after the last click.
    """

    points: NDArray[np.int64]
    labels: NDArray[np.int32]
    ious: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    masks: tuple[Rle, ...]

    @property
    def best_iou(self) -> NDArray[np.float32]:
        """IoU of the best of the three outputs, float32 `(N, K)`."""
        best: NDArray[np.float32] = self.ious.max(axis=2)
        return best

    @property
    def top_iou(self) -> NDArray[np.float32]:
        """IoU of the output with the highest predicted IoU, float32 `(N, K)`."""
        top = self.predicted_iou.argmax(axis=2)[..., np.newaxis]
        chosen: NDArray[np.float32] = np.take_along_axis(self.ious, top, axis=2)[..., 0]
        return chosen


def most_inner_point(region: NDArray[np.bool_]) -> tuple[int, int, float]:
    """Find the pixel of a region that is farthest from its outside.

    Args:
        region: Bool `(height, width)`, not empty; what is beyond the image is outside.

    Returns:
        Its x and y, and its exact Euclidean distance to the nearest pixel outside. Of equal
        ones the first, row by row.
    """
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    window = region[top : rows[-1] + 1, left : columns[-1] + 1]
    depth = ndimage.distance_transform_edt(np.pad(window, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return left + int(x), top + int(y), float(depth[y, x])


def click_segments(
    model: PointModel,
    embedding: Any,
    segments: Sequence[Rle],
    *,
    clicks: int,
    placement: Placement,
    seeds: Sequence[Sequence[int]],
) -> ClickedSegments:
    """Click at each segment of an image and correct what comes of it.

    Args:
        model: What segments.
        embedding: The image, encoded by it.
        segments: What to click at.
        clicks: Clicks at each.
        placement: Where in a region clicks fall.
        seeds: Of the random clicks at each segment.
    """
    size = model.prompts_per_batch
    batches = [
        _click_batch(
            model,
            embedding,
            [decode_mask(segment) for segment in segments[start : start + size]],
            clicks=clicks,
            placement=placement,
            seeds=seeds[start : start + size],
        )
        for start in range(0, len(segments), size)
    ]
    return ClickedSegments(
        points=np.concatenate([np.empty((0, clicks, 2), np.int64), *(b.points for b in batches)]),
        labels=np.concatenate([np.empty((0, clicks), np.int32), *(b.labels for b in batches)]),
        ious=np.concatenate([np.empty((0, clicks, 3), np.float32), *(b.ious for b in batches)]),
        predicted_iou=np.concatenate(
            [np.empty((0, clicks, 3), np.float32), *(b.predicted_iou for b in batches)]
        ),
        masks=tuple(mask for batch in batches for mask in batch.masks),
    )


def _click_batch(
    model: PointModel,
    embedding: Any,
    truths: list[NDArray[np.bool_]],
    *,
    clicks: int,
    placement: Placement,
    seeds: Sequence[Sequence[int]],
) -> ClickedSegments:
    count = len(truths)
    generators = [np.random.default_rng(seed) for seed in seeds]
    points = np.zeros((count, clicks, 2), np.int64)
    labels = np.full((count, clicks), FOREGROUND, np.int32)
    ious = np.zeros((count, clicks, 3), np.float32)
    predicted = np.zeros((count, clicks, 3), np.float32)
    masks = [np.zeros_like(truth) for truth in truths]
    is_done = np.zeros(count, bool)
    logits = None
    for click in range(clicks):
        for i, truth in enumerate(truths):
            clicked = points[i, :click]
            found = _next_click(truth, masks[i], clicked, placement, generators[i])
            if found is None:
                is_done[i] = True
                points[i, click], labels[i, click] = points[i, click - 1], labels[i, click - 1]
            else:
                points[i, click], labels[i, click] = found
        outputs = model.decode(
            embedding,
            points[:, : click + 1].astype(np.float64),
            labels[:, : click + 1],
            logits,
        )
        tops = outputs.predicted_iou.argmax(axis=1)
        for i, truth in enumerate(truths):
            if is_done[i]:
                ious[i, click], predicted[i, click] = ious[i, click - 1], predicted[i, click - 1]
                continue
            full = model.full_size(embedding, outputs.logits[i]) > 0
            ious[i, click] = [mask_iou(mask, truth) for mask in full]
            predicted[i, click] = outputs.predicted_iou[i]
            masks[i] = full[tops[i]]
        logits = outputs.logits[np.arange(count), tops]
    return ClickedSegments(points, labels, ious, predicted, tuple(map(encode_mask, masks)))


def _next_click(
    truth: NDArray[np.bool_],
    mask: NDArray[np.bool_],
    clicked: NDArray[np.int64],
    placement: Placement,
    rng: np.random.Generator,
) -> tuple[tuple[int, int], int] | None:
    """Place a click where a mask is wrong; None where nothing is, or only what was clicked."""
    missing, superfluous = truth & ~mask, mask & ~truth
    for region in (missing, superfluous):
        region[clicked[:, 1], clicked[:, 0]] = False
    if placement == "random":
        wrong = np.flatnonzero(missing | superfluous)
        if not len(wrong):
            return None
        y, x = divmod(int(wrong[rng.integers(len(wrong))]), truth.shape[1])
        return (x, y), FOREGROUND if missing[y, x] else BACKGROUND
    candidates = [
        (*most_inner_point(region), label)
        for region, label in ((missing, FOREGROUND), (superfluous, BACKGROUND))
        if region.any()
    ]
    if not candidates:
        return None
    x, y, _, label = max(candidates, key=lambda candidate: candidate[2])
    return (x, y), label


def mask_iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks; 1 for two empty ones."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0


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
