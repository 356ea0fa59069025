"""How much two runs over the same images agree, mask by mask.

Masks of an image are paired one to one so that the sum of their IoU is greatest. Both runs are read
side by side; memory grows only with how much the orders of their images differ.

Source:
    Panoptic quality, of one class and with masks that may overlap: Kirillov et al. 2019
    (arXiv:1801.00868). A pair counts from an IoU above 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.optimize import linear_sum_assignment

from amg_pipeline.amg.rle import rle_from_coco
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
from amg_pipeline.storage.image_masks import ImageMasks

#: IoU above which a pair counts for panoptic quality.
_PAIR_IOU = 0.5
#: IoU from which two masks are taken for nearly the same.
CLOSE_IOU = 0.9

_EMPTY: Rows = {
    "image_id": np.array([], np.str_),
    "status": np.array([], np.str_),
    **{name: np.array([], np.int32) for name in ("first_masks", "second_masks", "identical")},
    **{name: np.array([], np.int32) for name in ("paired", "close")},
    **{name: np.array([], np.float64) for name in ("paired_iou", "counted_iou")},
    "counted": np.array([], np.int32),
    "panoptic_quality": np.array([], np.float32),
}


@dataclass(frozen=True, slots=True)
class ImageAgreement:
    """What two runs have in common on one image.

    Attributes:
        first: Masks of the first run.
        second: Masks of the second run.
        identical: Masks of the first that the second has pixel by pixel.
        ious: IoU of each pair that overlaps, float64 `(pairs,)`.
    """

    first: int
    second: int
    identical: int
    ious: NDArray[np.float64]

    @property
    def panoptic_quality(self) -> float:
        """Sum of the IoU of pairs above 0.5, over their number and half of what is in no pair."""
        return panoptic_quality(
            float(self.ious[self.ious > _PAIR_IOU].sum()), self.first + self.second
        )


def panoptic_quality(counted_iou: float, masks: int) -> float:
    """Compute panoptic quality.

    Pairs and half of what is in none are together half of all masks. Without any masks, two runs
    agree: 1.

    Args:
        counted_iou: Sum of the IoU of pairs above 0.5.
        masks: Masks of both runs.
    """
    return counted_iou / (masks / 2) if masks else 1.0


def compare_images(first: ImageMasks, second: ImageMasks) -> ImageAgreement:
    """Pair the masks of one image in two runs.

    Args:
        first: Of one run.
        second: Of the other; of the same size where both have masks.
    """
    if not len(first) or not len(second):
        return ImageAgreement(len(first), len(second), 0, np.empty(0))
    encoded = [
        [
            {"size": [image.height, image.width], "counts": counts.encode("ascii")}
            for counts in image.counts
        ]
        for image in (first, second)
    ]
    ious = np.nan_to_num(np.asarray(coco_mask.iou(*encoded, [0] * len(second)), np.float64))
    rows, columns = linear_sum_assignment(ious, maximize=True)
    paired = ious[rows, columns]
    identical = len(set(first.counts) & set(second.counts))
    return ImageAgreement(len(first), len(second), identical, paired[paired > 0])


def evaluate_agreement(
    first: Iterable[ImageMasks],
    second: Iterable[ImageMasks],
    *,
    read_pixels: Callable[[ImageMasks], NDArray[np.uint8]],
    worst: int = 0,
    on_image: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Compare two runs image by image.

    Args:
        first: Images of one run.
        second: Images of the other, in any order.
        read_pixels: Gives the pixels of an image, for pictures of the worst.
        worst: How many of the worst images to keep.
        on_image: Called with the number of pairs after each image.

    Returns:
        A row per image of either run; `status` says whether both have it. Figures are of the
        images that both have.
    """
    parts: list[Rows] = []
    cases = WorstCases(worst)
    for one, other in pair_images(first, second):
        status = _status_of(one, other)
        if one is None or other is None or status != "both":
            there = [image for image in (one, other) if image is not None]
            nothing = ImageAgreement(len(one or ()), len(other or ()), 0, np.empty(0))
            parts.append(_row_of(there[0].image_id, status, nothing))
            on_image(0)
            continue
        found = compare_images(one, other)
        parts.append(_row_of(one.image_id, status, found))
        cases.add(_case_of(one, other, found, read_pixels))
        on_image(len(found.ious))
    rows = join_rows(parts, _EMPTY)
    summary = _summary_of(rows)
    return Evaluation(
        summary=summary, tables=(_table_of(summary),), rows=rows, worst=cases.worst_first()
    )


def pair_images(
    first: Iterable[ImageMasks], second: Iterable[ImageMasks]
) -> Iterator[tuple[ImageMasks | None, ImageMasks | None]]:
    """Pair the images of two runs by their ids, reading both side by side.

    Yields:
        Both, or one and None where the other run has no such image; these come last.
    """
    sides = (iter(first), iter(second))
    waiting: tuple[dict[str, ImageMasks], dict[str, ImageMasks]] = ({}, {})
    ended = [False, False]
    while not all(ended):
        for side in (0, 1):
            image = next(sides[side], None)
            if image is None:
                ended[side] = True
                continue
            partner = waiting[1 - side].pop(image.image_id, None)
            if partner is None:
                waiting[side][image.image_id] = image
            else:
                yield (image, partner) if side == 0 else (partner, image)
    yield from ((image, None) for image in waiting[0].values())
    yield from ((None, image) for image in waiting[1].values())


def _status_of(one: ImageMasks | None, other: ImageMasks | None) -> str:
    is_ok = [image is not None and image.status == "ok" for image in (one, other)]
    if all(is_ok) and one is not None and other is not None:
        same = (one.height, one.width) == (other.height, other.width)
        return "both" if same else "other size"
    return {(True, False): "first", (False, True): "second"}.get((is_ok[0], is_ok[1]), "neither")


def _row_of(image_id: str, status: str, found: ImageAgreement) -> Rows:
    counted = found.ious[found.ious > _PAIR_IOU]
    numbers = {
        "first_masks": found.first,
        "second_masks": found.second,
        "identical": found.identical,
        "paired": len(found.ious),
        "close": int(np.count_nonzero(found.ious >= CLOSE_IOU)),
        "counted": len(counted),
    }
    quality = found.panoptic_quality if status == "both" else np.nan
    return {
        "image_id": np.array([image_id]),
        "status": np.array([status]),
        **{name: np.array([number], np.int32) for name, number in numbers.items()},
        "paired_iou": np.array([found.ious.sum()]),
        "counted_iou": np.array([counted.sum()]),
        "panoptic_quality": np.array([quality], np.float32),
    }


def _summary_of(rows: Rows) -> dict[str, Any]:
    both = rows["status"] == "both"

    def total(name: str) -> int:
        return int(rows[name][both].sum())

    def share(part: float, whole: float) -> float | None:
        return part / whole if whole else None

    masks = total("first_masks") + total("second_masks")
    difference = rows["second_masks"][both].astype(np.int64) - rows["first_masks"][both]
    return {
        "images": {
            name: int(np.count_nonzero(rows["status"] == name))
            for name in ("both", "first", "second", "neither", "other size")
        },
        "masks": {"first": total("first_masks"), "second": total("second_masks")},
        "count_difference": {
            "mean": mean_or_none(difference),
            "mean_absolute": mean_or_none(np.abs(difference)),
            "images_with_equal_count": share(float((difference == 0).sum()), int(both.sum())),
        },
        "identical_share": share(2 * total("identical"), masks),
        "matched_iou": share(float(rows["paired_iou"][both].sum()), total("paired")),
        "share_at_iou_0.9": share(2 * total("close"), masks),
        "panoptic_quality": panoptic_quality(float(rows["counted_iou"][both].sum()), masks)
        if both.any()
        else None,
        "segmentation_quality": share(float(rows["counted_iou"][both].sum()), total("counted")),
        "recognition_quality": share(2 * total("counted"), masks),
    }


def _table_of(summary: dict[str, Any]) -> Table:
    names = (
        ("identical", "identical_share"),
        ("IoU of pairs", "matched_iou"),
        ("share at IoU 0.9", "share_at_iou_0.9"),
        ("panoptic quality", "panoptic_quality"),
        ("its segmentation part", "segmentation_quality"),
        ("its recognition part", "recognition_quality"),
    )
    return Table(
        title="Agreement of two runs",
        header=("figure", "value"),
        rows=(
            *((f"images, {k}", v) for k, v in summary["images"].items() if v),
            *((f"masks, {k}", v) for k, v in summary["masks"].items()),
            ("count difference", summary["count_difference"]["mean"]),
            ("absolute", summary["count_difference"]["mean_absolute"]),
            *((title, summary[name]) for title, name in names),
        ),
    )


def _case_of(
    one: ImageMasks,
    other: ImageMasks,
    found: ImageAgreement,
    read_pixels: Callable[[ImageMasks], NDArray[np.uint8]],
) -> Case:
    def masks_of(image: ImageMasks) -> list[Rle]:
        size = (image.height, image.width)
        return [rle_from_coco({"size": size, "counts": counts}) for counts in image.counts]

    def panels(draw: DrawMasks) -> list[Picture]:
        pixels = read_pixels(one)
        return [draw(pixels, masks_of(one)), draw(pixels, masks_of(other))]

    name = f"{found.first} and {found.second} masks"
    return Case(one.image_id, name, found.panoptic_quality, panels)
