"""How well two runs of automatic mask generation agree on one image.

A mask is a `FoundMask`, whoever found it. Two runs agree if they have the same number of masks in
the same order, scores within a tolerance, and masks that differ in *undecided* pixels only: those
whose logit is so close to the threshold that float32 rounding decides them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from amg_pipeline.amg.rle import decode_mask, rle_from_coco

#: Distance of a logit from the threshold below which a pixel is undecided.
UNDECIDED_LOGIT = 1e-3
#: Share of masks that must be equal byte for byte.
MIN_IDENTICAL_SHARE = 0.99
MIN_IOU = 0.999
MAX_SCORE_ERROR = 1e-4
#: Logits of both stability thresholds of the settings that are compared. A pixel within rounding of
#: one of them falls on either side, and in a mask below 10,000 pixels it alone moves the score by
#: more than `MAX_SCORE_ERROR`.
STABILITY_LOGITS = (1.0, -1.0)
#: Masks whose predicted IoU is closer than this may change places.
TIE = 1e-5

_POINTS_PER_CALL = 32

#: Runs point prompts on a crop: `(crop, points (P, 2)) -> logits (P, K, h, w), IoU (P, K)`.
PointPredictor = Callable[
    [NDArray[np.uint8], NDArray[np.float64]], tuple[NDArray[np.float32], NDArray[np.float32]]
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMask:
    """One mask of an image.

    Attributes:
        counts: COCO's compressed run lengths.
        predicted_iou: The model's estimate.
        stability_score: As the algorithm computes it.
        point: The prompt, XY in pixels of the image.
        crop_box: XYWH of the crop that it was found in.
        undecided: Undecided pixels as column-major positions in the image; empty if unknown.
        borderline: Pixels as close to a stability threshold; 0 if unknown.
    """

    counts: str
    predicted_iou: float
    stability_score: float
    point: tuple[float, float]
    crop_box: tuple[int, int, int, int]
    undecided: tuple[int, ...] = ()
    borderline: int = 0

    @classmethod
    def from_annotation(cls, annotation: Mapping[str, Any]) -> FoundMask:
        """Read what `generate` gives with `output_mode="coco_rle"`, ours or the reference's."""
        x, y = annotation["point_coords"][0]
        left, top, width, height = (int(side) for side in annotation["crop_box"])
        return cls(
            counts=annotation["segmentation"]["counts"],
            predicted_iou=annotation["predicted_iou"],
            stability_score=annotation["stability_score"],
            point=(x, y),
            crop_box=(left, top, width, height),
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FoundMask:
        """Read what `to_json` wrote."""
        sequences = {key: tuple(document[key]) for key in ("point", "crop_box", "undecided")}
        return cls(**{**document, **sequences})

    def to_json(self) -> dict[str, Any]:
        """Give a dictionary of numbers, strings and tuples."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskAgreement:
    """What differs between two runs on one image."""

    expected_masks: int
    found_masks: int
    identical: int
    min_iou: float
    differing_pixels: int
    decided_pixels: int
    max_score_error: float
    score_faults: int
    order_faults: int

    @property
    def passes(self) -> bool:
        """Whether all but the share of identical masks is as required."""
        return (
            self.expected_masks == self.found_masks
            and self.min_iou >= MIN_IOU
            and self.decided_pixels == 0
            and self.score_faults == 0
            and self.order_faults == 0
        )


def identical_share(agreements: Iterable[MaskAgreement]) -> float:
    """Give the share of byte-identical masks over several images; 1 if there are no masks."""
    counted = [(agreement.identical, agreement.expected_masks) for agreement in agreements]
    expected = sum(masks for _, masks in counted)
    return sum(identical for identical, _ in counted) / expected if expected else 1.0


def compare_masks(
    expected: Sequence[FoundMask],
    found: Sequence[FoundMask],
    *,
    height: int,
    width: int,
    min_region_area: int = 0,
    with_pixels: Callable[[FoundMask], FoundMask] = lambda mask: mask,
) -> MaskAgreement:
    """Compare two runs on one image.

    Args:
        expected: Masks of the run that is right.
        found: Masks of the other run.
        height: Rows of the image.
        width: Columns of the image.
        min_region_area: Regions below this were removed: one that hangs on an undecided pixel is
            undecided as a whole.
        with_pixels: Adds the undecided pixels to an expected mask; called only where something
            differs.
    """
    partners = _match(expected, found, height=height, width=width)
    pairs = [
        (mask, found[partner])
        for mask, partner in zip(expected, partners, strict=True)
        if partner is not None
    ]
    min_iou, differing_pixels, decided_pixels = 1.0 if len(pairs) == len(expected) else 0.0, 0, 0
    for mask, partner in pairs:
        if mask.counts == partner.counts:
            continue
        first, second = (_decode(m, height=height, width=width) for m in (mask, partner))
        min_iou = min(min_iou, _iou(first, second))
        differing = (first ^ second).T.ravel()
        undecided = np.zeros_like(differing)
        undecided[list(with_pixels(mask).undecided)] = True
        regions = (differing | undecided).reshape(width, height)
        excused = undecided | _undecided_regions(regions, undecided, min_region_area)
        differing_pixels += int(np.count_nonzero(differing))
        decided_pixels += int(np.count_nonzero(differing & ~excused))
    errors = [
        max(
            abs(mask.predicted_iou - partner.predicted_iou),
            abs(mask.stability_score - partner.stability_score),
        )
        for mask, partner in pairs
    ]
    return MaskAgreement(
        expected_masks=len(expected),
        found_masks=len(found),
        identical=sum(mask.counts == partner.counts for mask, partner in pairs),
        min_iou=min_iou,
        differing_pixels=differing_pixels,
        decided_pixels=decided_pixels,
        max_score_error=max(errors, default=0.0),
        score_faults=sum(
            _scores_differ(mask, partner, with_pixels, height=height, width=width)
            for mask, partner in pairs
        ),
        order_faults=_order_faults(expected, partners),
    )


def with_undecided(
    masks: Sequence[FoundMask], image: NDArray[np.uint8], predict: PointPredictor
) -> list[FoundMask]:
    """Add the undecided and the borderline pixels to masks, by predicting them once more."""
    height = image.shape[0]
    known = list(masks)
    for crop_box in {mask.crop_box for mask in masks}:
        left, top, crop_width, crop_height = crop_box
        crop = image[top : top + crop_height, left : left + crop_width]
        indices = [i for i, mask in enumerate(masks) if mask.crop_box == crop_box]
        for start in range(0, len(indices), _POINTS_PER_CALL):
            some = indices[start : start + _POINTS_PER_CALL]
            points = np.array([masks[i].point for i in some]) - [left, top]
            logits, iou = predict(crop, points)
            for row, index in enumerate(some):
                chosen = logits[row, np.abs(iou[row] - masks[index].predicted_iou).argmin()]
                rows, columns = np.nonzero(np.abs(chosen) < UNDECIDED_LOGIT)
                flat = np.sort((columns + left) * height + rows + top)
                known[index] = replace(
                    masks[index],
                    undecided=tuple(flat.tolist()),
                    borderline=sum(
                        int(np.count_nonzero(np.abs(chosen - logit) < UNDECIDED_LOGIT))
                        for logit in STABILITY_LOGITS
                    ),
                )
    return known


def _match(
    expected: Sequence[FoundMask], found: Sequence[FoundMask], *, height: int, width: int
) -> list[int | None]:
    """Find for each expected mask the one that came of the same point and looks most like it."""
    unused = set(range(len(found)))
    partners: list[int | None] = []
    for mask in expected:
        candidates = [
            i
            for i in sorted(unused)
            if found[i].crop_box == mask.crop_box
            and np.allclose(found[i].point, mask.point, rtol=0, atol=1e-6)
        ]
        if not candidates:
            partners.append(None)
            continue
        pixels = _decode(mask, height=height, width=width)
        ious = [_iou(pixels, _decode(found[i], height=height, width=width)) for i in candidates]
        best = candidates[int(np.argmax(ious))]
        unused.discard(best)
        partners.append(best)
    return partners


def _undecided_regions(
    regions: NDArray[np.bool_], undecided: NDArray[np.bool_], min_region_area: int
) -> NDArray[np.bool_]:
    """Mark the 8-connected regions with an undecided pixel, and fewer others than are removed."""
    labels, count = ndimage.label(regions, structure=np.ones((3, 3)))
    flat = labels.ravel()
    sizes = np.bincount(flat[~undecided], minlength=count + 1)
    hangs = np.bincount(flat[undecided], minlength=count + 1) > 0
    is_excused = hangs & (sizes < min_region_area)
    is_excused[0] = False
    marked: NDArray[np.bool_] = is_excused[flat]
    return marked


def _scores_differ(
    expected: FoundMask,
    found: FoundMask,
    with_pixels: Callable[[FoundMask], FoundMask],
    *,
    height: int,
    width: int,
) -> bool:
    if abs(expected.predicted_iou - found.predicted_iou) > MAX_SCORE_ERROR:
        return True
    error = abs(expected.stability_score - found.stability_score)
    if error <= MAX_SCORE_ERROR:
        return False
    area = _area(expected, height=height, width=width)
    return error > with_pixels(expected).borderline / max(area, 1)


def _order_faults(expected: Sequence[FoundMask], partners: Sequence[int | None]) -> int:
    """Count pairs that changed places although their scores are apart."""
    faults = 0
    for i, first in enumerate(partners):
        for k in range(i + 1, len(partners)):
            second = partners[k]
            if first is None or second is None or first < second:
                continue
            apart = abs(expected[i].predicted_iou - expected[k].predicted_iou)
            faults += apart >= TIE or expected[i].crop_box != expected[k].crop_box
    return faults


def _area(mask: FoundMask, *, height: int, width: int) -> int:
    return rle_from_coco({"size": [height, width], "counts": mask.counts}).area


def _decode(mask: FoundMask, *, height: int, width: int) -> NDArray[np.bool_]:
    return decode_mask(rle_from_coco({"size": [height, width], "counts": mask.counts}))


def _iou(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 1.0
