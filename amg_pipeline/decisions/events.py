"""What reviewers say, as events; and what events come to, image by image.

An event says how something is from then on. So an undo is an event like any other, and of two about
one mask the last counts. A mask is named by its pixels, so that no decision is ever taken for one
about another mask.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from amg_pipeline.storage.image_masks import ImageMasks

Decision = Literal["accepted", "rejected"]
Tag = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)]

_MOST_TAGS = 32
_NAME_DIGITS = 16
#: Between the names of a merge's parts.
_JOINT = "+"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Standing(_Frozen):
    """How a mask stands with one reviewer.

    Attributes:
        decision: None while there is none.
        tags: Words about the mask, in the order in which they were given.
    """

    decision: Decision | None = None
    tags: tuple[Tag, ...] = Field(default=(), max_length=_MOST_TAGS)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is said."""
        return self.decision is None and not self.tags


class Change(_Frozen):
    """What is from now on; what is not named stays.

    Attributes:
        masks: By the names of masks.
        merges: By the names of merges, `merge_name` of their parts; None takes one back.
        is_done: Whether the image is reviewed; None leaves it as it is.
    """

    masks: dict[str, Standing] = Field(default_factory=dict)
    merges: dict[str, Standing | None] = Field(default_factory=dict)
    is_done: bool | None = None


class Event(_Frozen):
    """One line of a log.

    Attributes:
        image_id: The image.
        row: Number of its row in the run's plan, to find it again; the id is what counts.
        time: When, in UTC as ISO 8601 writes it; only for people who read the log.
        change: What is from then on.
    """

    image_id: str
    row: int = Field(ge=0)
    time: str = ""
    change: Change


@dataclass(slots=True)
class ImageReview:
    """All that one reviewer said about an image.

    Attributes:
        row: Number of the image's row in the run's plan.
        masks: By name; without those of which nothing is said any more.
        merges: By name.
        is_done: Whether the image is reviewed.
    """

    row: int = 0
    masks: dict[str, Standing] = field(default_factory=dict)
    merges: dict[str, Standing] = field(default_factory=dict)
    is_done: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether nothing is said."""
        return not (self.masks or self.merges or self.is_done)

    def apply(self, change: Change) -> None:
        """Take up a change."""
        for name, standing in change.masks.items():
            self.masks.pop(name, None)
            if not standing.is_blank:
                self.masks[name] = standing
        for name, merge in change.merges.items():
            self.merges.pop(name, None)
            if merge is not None:
                self.merges[name] = merge
        if change.is_done is not None:
            self.is_done = change.is_done


def mask_names(image: ImageMasks) -> list[str]:
    """Name the masks of an image by their pixels; of equal ones, the later have a number added."""
    names = []
    seen: Counter[str] = Counter()
    for counts in image.counts:
        text = f"{image.height}x{image.width}:{counts}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:_NAME_DIGITS]
        seen[digest] += 1
        names.append(digest if seen[digest] == 1 else f"{digest}-{seen[digest]}")
    return names


def merge_name(parts: Iterable[str]) -> str:
    """Name the union of masks after them, whatever their order."""
    return _JOINT.join(sorted(set(parts)))


def parts_of(merge: str) -> list[str]:
    """Give the names of a merge's parts."""
    return merge.split(_JOINT)


def fold(lines: Iterable[bytes]) -> tuple[dict[str, ImageReview], int]:
    """Take up lines one after another.

    Returns:
        What they come to, by image; and how many were no event, such as what a kill left.
    """
    images: dict[str, ImageReview] = {}
    num_unreadable = 0
    for line in lines:
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            num_unreadable += bool(line.strip())
            continue
        take_up(images, event)
    return images, num_unreadable


def take_up(images: dict[str, ImageReview], event: Event) -> ImageReview:
    """Take up one event."""
    review = images.setdefault(event.image_id, ImageReview())
    review.row = event.row
    review.apply(event.change)
    return review


def merges_of(reviews: Iterable[ImageReview], names: Sequence[str]) -> Mapping[str, list[int]]:
    """List the merges that can be made of the masks that there are, with the indices of parts."""
    index = {name: number for number, name in enumerate(names)}
    found: dict[str, list[int]] = {}
    for review in reviews:
        for merge in review.merges:
            parts = parts_of(merge)
            # Masks of a run that was made anew are others.
            if all(part in index for part in parts):
                found[merge] = sorted(index[part] for part in parts)
    return dict(sorted(found.items(), key=lambda item: item[1]))
