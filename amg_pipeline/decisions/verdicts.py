"""What the decisions of all reviewers come to, mask by mask.

Whoever rejects a mask is right: it counts as accepted only where somebody accepts it and nobody
rejects it. A mask that was merged with others stands for itself no longer; the union does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from amg_pipeline.decisions.events import ImageReview, Standing, mask_names, merges_of
from amg_pipeline.decisions.reviewer_log import read_reviews
from amg_pipeline.errors import StorageError
from amg_pipeline.storage.coco_rle import parse_rle, tight_boxes_xywh, unite_masks
from amg_pipeline.storage.image_masks import ImageMasks, MaskReview

#: Columns of which a union takes the value of its largest part.
_OF_LARGEST = ("point_coords", "crop_box_xywh")
#: Columns of which it takes the least: nothing scored the union itself.
_LEAST = ("predicted_iou", "stability_score")


class Verdicts:
    """The decisions about a run.

    Args:
        reviews: By reviewer, by image.
    """

    def __init__(self, reviews: Mapping[str, Mapping[str, ImageReview]]) -> None:
        self._reviews = reviews

    @classmethod
    def load(cls, uri: str, reviewers: Sequence[str] = ()) -> Verdicts:
        """Read what reviewers said about the run in `uri`; all of them by default.

        Raises:
            ConfigError: If a reviewer that is named, or any, said nothing.
            StorageError: If a log cannot be read.
        """
        return cls(read_reviews(uri, reviewers))

    def is_reviewed(self, image_id: str) -> bool:
        """Tell whether anybody said anything about an image."""
        return bool(self._about(image_id))

    def _about(self, image_id: str) -> dict[str, ImageReview]:
        return {
            name: found
            for name, images in self._reviews.items()
            if (found := images.get(image_id)) is not None and not found.is_blank
        }

    def annotate(self, image: ImageMasks) -> ImageMasks:
        """Add to an image what was decided, and after its masks the unions that people made.

        Returns:
            The image with `reviews`; as it is where nobody looked at it.

        Raises:
            StorageError: If a mask that was merged is malformed.
        """
        by_reviewer = self._about(image.image_id)
        if not by_reviewer:
            return image
        names = mask_names(image)
        merges = merges_of(by_reviewer.values(), names)
        merged = {part for parts in merges.values() for part in parts}
        reviews = [
            _judge(_standings(by_reviewer, name), is_merged=index in merged)
            for index, name in enumerate(names)
        ]
        reviews += [
            replace(_judge(_standings(by_reviewer, name)), merged_from=tuple(parts))
            for name, parts in merges.items()
        ]
        return replace(_with_unions(image, list(merges.values())), reviews=tuple(reviews))


def unite(image: ImageMasks, indices: Sequence[int]) -> tuple[str, int]:
    """Unite masks of an image.

    Returns:
        The union's compressed counts, and its pixels.

    Raises:
        StorageError: If one is malformed.
    """
    counts = [image.counts[index] for index in indices]
    try:
        # pycocotools trusts its input.
        for text in counts:
            parse_rle(text, height=image.height, width=image.width)
    except ValueError as error:
        raise StorageError(
            f"The masks of {image.image_id!r} must be valid. Received: {error}. Find the damaged "
            "ones with `amg verify`"
        ) from error
    return unite_masks(counts, height=image.height, width=image.width)


def _standings(reviews: Mapping[str, ImageReview], name: str) -> dict[str, Standing]:
    """List how a mask, or a merge, stands with each reviewer that said something."""
    found = {who: said.masks.get(name) or said.merges.get(name) for who, said in reviews.items()}
    return {who: standing for who, standing in found.items() if standing is not None}


def _judge(standings: Mapping[str, Standing], *, is_merged: bool = False) -> MaskReview:
    decisions = {standing.decision for standing in standings.values()} - {None}
    tags = dict.fromkeys(tag for standing in standings.values() for tag in standing.tags)
    return MaskReview(
        verdict="rejected"
        if "rejected" in decisions
        else "merged"
        if is_merged
        else "accepted"
        if "accepted" in decisions
        else None,
        is_disputed=len(decisions) > 1,
        tags=tuple(tags),
        reviewers=tuple(standings),
    )


def _with_unions(image: ImageMasks, unions: Sequence[Sequence[int]]) -> ImageMasks:
    if not unions:
        return image
    united = [unite(image, parts) for parts in unions]
    texts = [counts for counts, _ in united]
    added: dict[str, Any] = {
        "area": [area for _, area in united],
        "bbox_xywh": tight_boxes_xywh(texts, height=image.height, width=image.width),
    }
    largest = [max(parts, key=lambda part: int(image.area[part])) for parts in unions]
    for name in _OF_LARGEST:
        added[name] = getattr(image, name)[largest]
    for name in _LEAST:
        # An empty mask has no stability, and says nothing about the others.
        added[name] = [np.fmin.reduce(getattr(image, name)[list(parts)]) for parts in unions]
    columns: dict[str, Any] = {
        name: np.concatenate([old := getattr(image, name), np.asarray(new, old.dtype)])
        for name, new in added.items()
    }
    return replace(image, counts=[*image.counts, *texts], **columns)
