"""Which images of a run are shown: a few of each kind, chosen while all of them pass."""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass, field
from typing import Any

from amg_pipeline.storage.image_scores import RowPlace


@dataclass(frozen=True, slots=True)
class Pick:
    """An image that may be shown.

    Attributes:
        image_id: Its name.
        place: Where its row lies.
        num_masks: Wanted masks that it has.
        mean_iou: Of their predicted IoU; None without masks.
    """

    image_id: str
    place: RowPlace
    num_masks: int
    mean_iou: float | None


@dataclass(frozen=True, slots=True)
class Section:
    """Images that are shown together, in order.

    Attributes:
        name: Short, for addresses within the page.
        title: What a reader sees.
        picks: The images.
    """

    name: str
    title: str
    picks: tuple[Pick, ...]


@dataclass(slots=True)
class Smallest:
    """Keeps the entries of the smallest ranks, of equal ones the first."""

    limit: int
    _heap: list[tuple[Any, int, Pick]] = field(default_factory=list)
    _offered: int = 0

    def offer(self, rank: float, pick: Pick) -> None:
        """Keep an entry if it is among the smallest so far."""
        self._offered += 1
        # A heap has its smallest on top; the one to give up is that of the greatest rank.
        entry = (-rank, -self._offered, pick)
        if len(self._heap) < self.limit:
            heapq.heappush(self._heap, entry)
        elif self._heap and entry[:2] > self._heap[0][:2]:
            heapq.heapreplace(self._heap, entry)

    def picks(self) -> tuple[Pick, ...]:
        """Give what is kept, the smallest rank first."""
        return tuple(entry[2] for entry in sorted(self._heap, key=lambda e: (-e[0], -e[1])))


class Gallery:
    """Chooses the images of a page's gallery.

    Args:
        limit: The most images of a section.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._count = 0
        self._first = Smallest(limit)
        self._random = Smallest(limit)
        self._most = Smallest(limit)
        self._fewest = Smallest(limit)
        self._worst = Smallest(limit)

    @property
    def count(self) -> int:
        """Number of images that were offered."""
        return self._count

    def offer(self, pick: Pick) -> None:
        """Take an image into account."""
        self._count += 1
        self._first.offer(self._count, pick)
        self._random.offer(_hash_rank(pick.image_id), pick)
        self._most.offer(-pick.num_masks, pick)
        self._fewest.offer(pick.num_masks, pick)
        if pick.mean_iou is not None:
            self._worst.offer(pick.mean_iou, pick)

    def sections(self) -> tuple[Section, ...]:
        """Give the sections that have images; a run of few images is shown whole."""
        everything = Section("all", "All images", self._first.picks())
        some = Section("random", "Random images", self._random.picks())
        sections = (
            everything if self._count <= self._limit else some,
            Section("most", "Most masks", self._most.picks()),
            Section("fewest", "Fewest masks", self._fewest.picks()),
            Section("worst", "Lowest scores", self._worst.picks()),
        )
        return tuple(section for section in sections if section.picks)


def _hash_rank(image_id: str) -> float:
    """Give a number in [0, 1) that depends on the name alone, and on it in no visible way."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:6]) / 2**48
