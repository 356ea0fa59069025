"""How well edges agree with the borders that people drew: ODS, OIS, AP and R50 of BSDS500.

Source:
    Arbelaez et al. 2011, "Contour detection and hierarchical image segmentation", and its benchmark
    code; ODS, AP and R50 are interpolated as in Dollar and Zitnick's `edgesEvalDir`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.errors import ImageDecodeError, ImageError
from amg_pipeline.evaluation.annotated import AnnotatedImage, Annotation
from amg_pipeline.evaluation.boundary_matching import match_boundaries, thin
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

#: Steps of the interpolation between two thresholds.
_STEPS = 100

_EMPTY: Rows = {
    "image_id": np.array([], np.str_),
    "threshold": np.array([], np.float32),
    **{name: np.array([], np.int64) for name in ("recalled", "truth", "correct", "found")},
}


@dataclass(frozen=True, slots=True)
class EdgeCounts:
    """Pixels of one or more images, at each of `T` thresholds; all int64 `(T,)`.

    Attributes:
        recalled: Pixels of people's borders that were found, summed over annotators.
        truth: Pixels of people's borders.
        correct: Found pixels that some annotator has.
        found: Found pixels.
    """

    recalled: NDArray[np.int64]
    truth: NDArray[np.int64]
    correct: NDArray[np.int64]
    found: NDArray[np.int64]

    def at(self, index: int) -> EdgeCounts:
        """Take one threshold."""
        part = slice(index, index + 1)
        return EdgeCounts(
            self.recalled[part], self.truth[part], self.correct[part], self.found[part]
        )

    @property
    def recall(self) -> NDArray[np.float64]:
        """Share of people's borders that was found."""
        share: NDArray[np.float64] = self.recalled / np.maximum(self.truth, 1)
        return share

    @property
    def precision(self) -> NDArray[np.float64]:
        """Share of what was found that is right."""
        share: NDArray[np.float64] = self.correct / np.maximum(self.found, 1)
        return share

    @property
    def f_measure(self) -> NDArray[np.float64]:
        """Harmonic mean of both."""
        return _f_measure(self.recall, self.precision)


def sum_counts(parts: Sequence[EdgeCounts]) -> EdgeCounts:
    """Add the counts of several images."""
    return EdgeCounts(
        recalled=np.sum([part.recalled for part in parts], axis=0),
        truth=np.sum([part.truth for part in parts], axis=0),
        correct=np.sum([part.correct for part in parts], axis=0),
        found=np.sum([part.found for part in parts], axis=0),
    )


def thresholds_of(count: int) -> NDArray[np.float64]:
    """Give thresholds evenly between 0 and 1, without either."""
    return np.arange(1, count + 1) / (count + 1)


def count_edges(
    edges: NDArray[np.float32],
    boundaries: Sequence[NDArray[np.bool_]],
    *,
    thresholds: NDArray[np.float64],
    max_distance: float = 0.0075,
) -> EdgeCounts:
    """Compare the edges of one image with people's borders.

    Args:
        edges: Strength in [0, 1], float32 `(height, width)`.
        boundaries: Of each annotator, bool `(height, width)`.
        thresholds: Edges of at least this strength are compared, thinned.
        max_distance: Greatest distance of what is the same, as a share of the image's diagonal.
    """
    truth = sum(int(np.count_nonzero(boundary)) for boundary in boundaries)
    counts = np.zeros((4, len(thresholds)), np.int64)
    counts[1] = truth
    limit = max_distance * float(np.hypot(*edges.shape))
    last_size = -1
    for i, threshold in enumerate(thresholds):
        chosen = edges >= threshold
        size = int(np.count_nonzero(chosen))
        if size == last_size:  # higher thresholds choose among the same pixels
            counts[:, i] = counts[:, i - 1]
            continue
        last_size = size
        found = thin(chosen)
        is_correct = np.zeros_like(found)
        for boundary in boundaries:
            matched, recalled = match_boundaries(found, boundary, max_distance=limit)
            is_correct |= matched
            counts[0, i] += int(np.count_nonzero(recalled))
        counts[2, i], counts[3, i] = np.count_nonzero(is_correct), np.count_nonzero(found)
    return EdgeCounts(*counts)


def summarize_edges(
    images: Sequence[EdgeCounts], thresholds: NDArray[np.float64]
) -> dict[str, float | None]:
    """Compute the benchmark's four figures, and the threshold of the first.

    Args:
        images: Counts of each image.
        thresholds: At which they were taken, ascending.

    Returns:
        `ods`, the F-measure at the best threshold for all; `ods_threshold`; `ois`, the same with
        the best threshold for each image; `ap`, the mean precision over recalls; `r50`, the recall
        at half precision, 0 where no threshold is so precise. All None without images.
    """
    if not images:
        return dict.fromkeys(("ods", "ods_threshold", "ois", "ap", "r50"))
    total = sum_counts(images)
    recall, precision = total.recall, total.precision
    ods, ods_threshold = _best_between(recall, precision, thresholds)
    best = sum_counts([counts.at(int(counts.f_measure.argmax())) for counts in images])
    # Of equal recalls the one with the best precision; np.interp needs ascending places.
    recalls, precisions = _upper_envelope(recall, precision)
    places = np.linspace(0.0, 1.0, 101)
    inside = (places >= recalls[0]) & (places <= recalls[-1])
    ap = float(np.interp(places[inside], recalls, precisions).sum()) / 100
    ascending, recalls_there = _upper_envelope(precision, recall)
    r50 = 0.0
    if ascending[-1] >= 0.5:
        r50 = float(np.interp(max(0.5, ascending[0]), ascending, recalls_there))
    return {
        "ods": ods,
        "ods_threshold": ods_threshold,
        "ois": float(best.f_measure[0]),
        "ap": ap,
        "r50": r50,
    }


def _best_between(
    recall: NDArray[np.float64], precision: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> tuple[float, float]:
    """Find the best F-measure and its threshold, also between two that were measured."""
    places = np.linspace(0.0, len(thresholds) - 1.0, _STEPS * max(len(thresholds) - 1, 1) + 1)
    indices = np.arange(len(thresholds))
    values = _f_measure(np.interp(places, indices, recall), np.interp(places, indices, precision))
    best = int(values.argmax())
    return float(values[best]), float(np.interp(places[best], indices, thresholds))


def _upper_envelope(
    places: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sort by place and keep the greatest value of equal places."""
    unique, groups = np.unique(places, return_inverse=True)
    greatest = np.full(len(unique), -np.inf)
    np.maximum.at(greatest, groups, values)
    return unique, greatest


def _f_measure(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> NDArray[np.float64]:
    both = recall + precision
    share: NDArray[np.float64] = 2 * recall * precision / np.where(both > 0, both, 1)
    return share


def evaluate_edges(
    images: Iterable[AnnotatedImage],
    find_edges: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    *,
    num_thresholds: int = 99,
    max_distance: float = 0.0075,
    worst: int = 0,
    on_image: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Measure edges against the borders of all annotators.

    Args:
        images: What to measure on; their annotations must have boundaries.
        find_edges: From an image to the strength of its edges in [0, 1].
        num_thresholds: Thresholds, evenly between 0 and 1.
        max_distance: Greatest distance of what is the same, as a share of the image's diagonal.
        worst: How many of the worst images to keep.
        on_image: Called after each image.

    Returns:
        A row per image and threshold.
    """
    thresholds = thresholds_of(num_thresholds)
    parts: list[Rows] = []
    all_counts: list[EdgeCounts] = []
    failed: dict[str, str] = {}
    cases = WorstCases(worst)
    for image in images:
        try:
            pixels, annotations = image.read()
            boundaries = _boundaries_of(annotations)
        except ImageError as error:
            failed[image.image_id] = str(error)
            on_image(0)
            continue
        edges = find_edges(pixels)
        counts = count_edges(edges, boundaries, thresholds=thresholds, max_distance=max_distance)
        all_counts.append(counts)
        parts.append(_rows_of(image.image_id, thresholds, counts))
        cases.add(_case_of(image, edges, boundaries, counts))
        on_image(0)
    figures = summarize_edges(all_counts, thresholds)
    return Evaluation(
        summary={"images": len(all_counts), **figures},
        tables=(
            Table(
                title=f"Edges, {num_thresholds} thresholds",
                header=("ODS", "OIS", "AP", "R50"),
                rows=(tuple(figures[name] for name in ("ods", "ois", "ap", "r50")),),
            ),
        ),
        rows=join_rows(parts, _EMPTY),
        worst=cases.worst_first(),
        failed=failed,
    )


def _boundaries_of(annotations: Sequence[Annotation]) -> list[NDArray[np.bool_]]:
    boundaries = [one.boundaries for one in annotations if one.boundaries is not None]
    if not boundaries:
        raise ImageDecodeError(
            "Edges are compared with boundaries, as BSDS500 has them. Received: annotations "
            "without; choose a data set of format bsds"
        )
    return boundaries


def _rows_of(image_id: str, thresholds: NDArray[np.float64], counts: EdgeCounts) -> Rows:
    return {
        "image_id": np.full(len(thresholds), image_id),
        "threshold": thresholds.astype(np.float32),
        "recalled": counts.recalled,
        "truth": counts.truth,
        "correct": counts.correct,
        "found": counts.found,
    }


def _case_of(
    image: AnnotatedImage,
    edges: NDArray[np.float32],
    boundaries: Sequence[NDArray[np.bool_]],
    counts: EdgeCounts,
) -> Case:
    found = np.round(255 * edges).astype(np.uint8)
    truth = np.mean(np.stack(boundaries), axis=0)

    def panels(_draw: DrawMasks) -> list[Picture]:
        people = np.round(255 * truth).astype(np.uint8)
        return [image.read_pixels(), *(np.repeat(p[..., None], 3, axis=2) for p in (people, found))]

    return Case(image.image_id, "edges", float(counts.f_measure.max()), panels)
