"""Which images and masks of a stored run are wanted: shared by all that reads a run back.

selection = Selection(min_iou=0.9, top_k=50, images=("2024/*",))
for image in select(load_masks("out"), selection): ...
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.decisions.verdicts import Verdicts
from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.image_masks import ImageMasks, read_image_ids, read_image_masks
from amg_pipeline.storage.image_scores import ImageScores, read_image_scores

#: Masks that a person accepted and none rejected; that any rejected; all but those.
Reviewed = Literal["accepted", "rejected", "unrejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Filters over stored masks; the defaults keep everything.

    Attributes:
        min_iou: Least predicted IoU.
        min_stability: Least stability score.
        min_area: Fewest pixels.
        max_area_fraction: Masks that cover at least this fraction of their image are left out, as
            by the setting of the same name; 1 keeps all.
        top_k: The most masks of an image, those of the highest predicted IoU; None for all.
        images: Globs, one of which an image's id must match; empty for all.
        sample: A repeatable random choice of so many images; None for all.
        sample_seed: Another seed chooses others.
        reviewed: Masks by what people decided; None for all, without the unions that people made.
            Images that nobody looked at have neither accepted nor rejected masks, and are left out
            with these two.
        reviewers: Whose decisions count; empty for everybody's.

    Raises:
        ConfigError: If a value is out of range.
    """

    min_iou: float = 0.0
    min_stability: float = 0.0
    min_area: int = 0
    max_area_fraction: float = 1.0
    top_k: int | None = None
    images: tuple[str, ...] = ()
    sample: int | None = None
    sample_seed: int = 0
    reviewed: Reviewed | None = None
    reviewers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("min_iou", "min_stability", "max_area_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must lie in [0, 1]. Received: {getattr(self, name)}")
        for name in ("min_area", "top_k", "sample"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"{name} must be at least 0. Received: {value}")
        if self.reviewed not in (None, *get_args(Reviewed)):
            choices = ", ".join(get_args(Reviewed))
            raise ConfigError(f"reviewed must be one of {choices}. Received: {self.reviewed!r}")
        if self.reviewers and self.reviewed is None:
            raise ConfigError(
                "reviewers say whose decisions count, which nothing asks for. Received: "
                f"{', '.join(self.reviewers)}, without reviewed"
            )

    def accepts_image(self, image_id: str) -> bool:
        """Tell whether an image's id matches; of a sample nothing is known here."""
        return not self.images or any(fnmatchcase(image_id, glob) for glob in self.images)

    def leaves_out(self, image: ImageMasks) -> bool:
        """Tell whether an image is left out because nobody looked at it."""
        return self.reviewed in ("accepted", "rejected") and image.reviews is None

    def choose(self, image: ImageMasks | ImageScores) -> NDArray[np.intp]:
        """Find the masks of one image that are wanted.

        Returns:
            Their indices, in the order in which they are stored.
        """
        # NumPy compares with the float32 nearest to a limit, which is what was stored for it.
        wanted = image.predicted_iou >= self.min_iou
        if self.min_stability > 0:
            wanted &= image.stability_score >= self.min_stability
        wanted &= image.area >= self.min_area
        if self.max_area_fraction < 1:
            wanted &= image.area < self.max_area_fraction * image.width * image.height
        if self.reviewed is not None and isinstance(image, ImageMasks):
            wanted &= self._choose_reviewed(image)
        chosen = np.flatnonzero(wanted)
        if self.top_k is None or len(chosen) <= self.top_k:
            return chosen
        best = np.argsort(-image.predicted_iou[chosen], kind="stable")[: self.top_k]
        return np.sort(chosen[best])

    def _choose_reviewed(self, image: ImageMasks) -> NDArray[np.bool_]:
        if image.reviews is None:
            return np.full(len(image), self.reviewed == "unrejected")
        verdicts = [review.verdict for review in image.reviews]
        kept = ("accepted", None) if self.reviewed == "unrejected" else (self.reviewed,)
        return np.array([verdict in kept for verdict in verdicts], np.bool_)


def select(
    dataset: Any, selection: Selection, verdicts: Verdicts | None = None
) -> Iterator[ImageMasks]:
    """Read the wanted images of a run with their wanted masks, in the run's order.

    Memory does not grow with the run, but for the ids of a sample and what people decided. Images
    that failed are there, without masks; a sample draws from those that did not.

    Args:
        dataset: As `load_masks` returns it.
        selection: What is wanted.
        verdicts: What people decided, for `reviewed`.

    Raises:
        ConfigError: If `reviewed` is asked for without verdicts.
        StorageError: If a shard cannot be read.
    """
    for image in read_wanted(dataset, selection, verdicts):
        if not selection.leaves_out(image):
            yield image.take(selection.choose(image))


def read_wanted(
    dataset: Any, selection: Selection, verdicts: Verdicts | None = None
) -> Iterator[ImageMasks]:
    """Read the wanted images of a run with all their masks; as `select`, for who counts them.

    With `reviewed`, they come with what people decided and with the unions that they made.
    """
    if selection.reviewed is not None and verdicts is None:
        raise ConfigError("reviewed needs what people decided. Received: no verdicts")
    is_wanted = _wanted_images(dataset, selection)
    images = (image for image in read_image_masks(dataset) if is_wanted(image.image_id))
    if selection.reviewed is None or verdicts is None:
        return images
    return map(verdicts.annotate, images)


def read_wanted_scores(dataset: Any, selection: Selection) -> Iterator[ImageScores]:
    """Read the scores of all masks of the wanted images, and no mask; as `read_wanted`."""
    if selection.reviewed is not None:
        raise ConfigError("reviewed needs the masks themselves. Received: a wish for scores only")
    is_wanted = _wanted_images(dataset, selection)
    return (image for image in read_image_scores(dataset) if is_wanted(image.image_id))


def _wanted_images(dataset: Any, selection: Selection) -> Callable[[str], bool]:
    drawn = _draw(dataset, selection)
    return selection.accepts_image if drawn is None else drawn.__contains__


def _draw(dataset: Any, selection: Selection) -> frozenset[str] | None:
    """Choose the ids of a sample by a hash of each, whatever their order; None without a sample."""
    if selection.sample is None:
        return None
    ranked = (
        (hashlib.sha256(f"{selection.sample_seed}\0{image_id}".encode()).digest(), image_id)
        for image_id, status in read_image_ids(dataset)
        if status == "ok" and selection.accepts_image(image_id)
    )
    return frozenset(image_id for _, image_id in heapq.nsmallest(selection.sample, ranked))
