"""One reviewer at work on one run: the images, what was decided, and how far it is."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from amg_pipeline.decisions.events import (
    Change,
    Event,
    ImageReview,
    Standing,
    mask_names,
    merge_name,
    merges_of,
    parts_of,
)
from amg_pipeline.decisions.reviewer_log import ReviewerLog
from amg_pipeline.decisions.verdicts import unite
from amg_pipeline.errors import CommitConflictError, ConfigError
from amg_pipeline.storage.coco_rle import tight_boxes_xywh
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.run_images import RunImages

_LEAST_PARTS = 2
_MOST_FOUND = 20


class ReviewSession:
    """What the page asks for, as plain values; may be called from several threads.

    Args:
        images: The run's images.
        log: The reviewer's decisions.
        reviewer: Their name.
        title: What the run is called on the page.
    """

    def __init__(self, images: RunImages, log: ReviewerLog, *, reviewer: str, title: str) -> None:
        self._images = images
        self._log = log
        self._reviewer = reviewer
        self._title = title
        self._lock = threading.Lock()

    def describe(self) -> dict[str, Any]:
        """Say what is reviewed, by whom, and how far it is."""
        tags: dict[str, None] = {}
        with self._lock:
            for review in self._log.images.values():
                for standing in (*review.masks.values(), *review.merges.values()):
                    tags.update(dict.fromkeys(standing.tags))
        return {
            "title": self._title,
            "reviewer": self._reviewer,
            "num_images": len(self._images),
            "num_done": len(self._done()),
            "fingerprint": self._images.plan.fingerprint[:8],
            "tags": sorted(tags),
        }

    def masks_of(self, number: int) -> ImageMasks:
        """Read an image.

        Raises:
            IndexError: If there is no such image.
            StorageError: If it cannot be read.
        """
        return self._images.read(number)

    def show(self, number: int) -> dict[str, Any]:
        """Give all that the page needs of an image but its pixels.

        Raises:
            IndexError: If there is no such image.
            StorageError: If it cannot be read.
        """
        image = self._images.read(number)
        names = mask_names(image)
        return {
            "number": number,
            "image_id": image.image_id,
            "status": image.status,
            "width": image.width,
            "height": image.height,
            "masks": {
                "name": names,
                "counts": list(image.counts),
                "predicted_iou": image.predicted_iou,
                "stability_score": image.stability_score,
                "area": image.area,
                "bbox": image.bbox_xywh.astype(np.int32),
            },
            "review": self._review_of(image, names),
        }

    def change(self, number: int, image_id: str, change: Change) -> dict[str, Any]:
        """Record a decision; it is there for good when the call returns.

        Returns:
            How the image stands now, and how far the review is.

        Raises:
            CommitConflictError: If the image of this number is another one.
            ConfigError: If the change names masks that the image has not.
            IndexError: If there is no such image.
            StorageError: If it could not be written.
        """
        image = self._images.read(number)
        if image.image_id != image_id:
            raise CommitConflictError(
                f"Image {number} must be {image_id!r}. Received: {image.image_id!r}; the run has "
                "changed. Load the page again"
            )
        names = mask_names(image)
        _check(change, names)
        event = Event(
            image_id=image_id,
            row=self._images.row_of(number),
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            change=change,
        )
        with self._lock:
            self._log.record(event)
        return {"review": self._review_of(image, names), "num_done": len(self._done())}

    def next_open(self, number: int, *, step: int = 1) -> int | None:
        """Find the next image to review after a number, from the start again after the end.

        Args:
            number: Where to start; it comes last.
            step: 1 for the next one, -1 for the one before.

        Raises:
            StorageError: If an image cannot be read.
        """
        total, done = len(self._images), self._done()
        for distance in range(1, total + 1):
            candidate = (number + step * distance) % total
            if candidate not in done and self._is_open(self._images.read(candidate)):
                return candidate
        return None

    def find(self, text: str) -> list[dict[str, Any]]:
        """Find images by a part of their id."""
        found = self._images.find(text, limit=_MOST_FOUND)
        return [{"number": number, "image_id": image_id} for number, image_id in found]

    def _is_open(self, image: ImageMasks) -> bool:
        with self._lock:
            review = self._log.images.get(image.image_id)
        return image.status == "ok" and not (review is not None and review.is_done)

    def _done(self) -> set[int]:
        """Give the numbers of the images that are reviewed, as far as they are among these."""
        with self._lock:
            rows = [review.row for review in self._log.images.values() if review.is_done]
        numbers = map(self._images.number_of, rows)
        return {number for number in numbers if number is not None}

    def _review_of(self, image: ImageMasks, names: list[str]) -> dict[str, Any]:
        with self._lock:
            review = self._log.images.get(image.image_id, ImageReview())
            masks = {name: _plain(review.masks[name]) for name in names if name in review.masks}
            merges = {
                name: _plain(review.merges[name]) | _union(image, parts)
                for name, parts in merges_of([review], names).items()
            }
            return {"masks": masks, "merges": merges, "is_done": review.is_done}


def _plain(standing: Standing) -> dict[str, Any]:
    return {"decision": standing.decision, "tags": list(standing.tags)}


def _union(image: ImageMasks, parts: list[int]) -> dict[str, Any]:
    counts, area = unite(image, parts)
    return {
        "parts": parts,
        "counts": counts,
        "area": area,
        "bbox": tight_boxes_xywh([counts], height=image.height, width=image.width)[0].astype(
            np.int32
        ),
        "predicted_iou": np.fmin.reduce(image.predicted_iou[parts]),
        "stability_score": np.fmin.reduce(image.stability_score[parts]),
    }


def _check(change: Change, names: list[str]) -> None:
    known = frozenset(names)
    named: Mapping[str, None] = dict.fromkeys(change.masks)
    for merge in change.merges:
        parts = parts_of(merge)
        if merge != merge_name(parts) or len(parts) < _LEAST_PARTS:
            raise ConfigError(
                f"A merge must be named by two parts or more, in order. Received: {merge[:80]!r}"
            )
        named = {**named, **dict.fromkeys(parts)}
    if unknown := [name for name in named if name not in known]:
        raise ConfigError(
            f"Decisions must be about masks of the image. Received: {unknown[0][:80]!r}, which is "
            "none of it. Load the page again"
        )
