"""What a measurement gives: numbers, tables to look at, rows to keep, and the worst cases."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.records import Rle

Picture = NDArray[np.uint8]
#: Draws masks over the pixels of an image; comes from above, where pictures are made.
DrawMasks = Callable[[Picture, Sequence[Rle]], Picture]
#: Columns of equal length by name.
Rows = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers for people.

    Attributes:
        title: What they are.
        header: Names of the columns.
        rows: Cells; floats are shares or means and are shown with few digits.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str | int | float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Case:
    """Something that came out badly, and how to look at it.

    Attributes:
        image_id: Of which image.
        name: What it is, in a few words.
        score: How it came out; less is worse.
        panels: Makes the pictures to put side by side.
    """

    image_id: str
    name: str
    score: float
    panels: Callable[[DrawMasks], list[Picture]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a measurement gives.

    Attributes:
        summary: Numbers by name, as JSON has them.
        tables: The same for people.
        rows: One row per image, or per segment and click.
        worst: The worst cases, worst first.
        failed: Why images could not be measured, by their ids.
    """

    summary: Mapping[str, Any]
    tables: tuple[Table, ...]
    rows: Rows
    worst: tuple[Case, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)


class WorstCases:
    """Keeps the few worst of many cases.

    Args:
        limit: How many.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._order = itertools.count()
        self._heap: list[tuple[float, int, Case]] = []

    def add(self, case: Case) -> None:
        """Keep a case if it is among the worst so far; of equal ones the first."""
        entry = (-case.score, -next(self._order), case)
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
        elif self._heap:
            heapq.heappushpop(self._heap, entry)

    def worst_first(self) -> tuple[Case, ...]:
        """Give what was kept."""
        ordered = sorted(self._heap, key=lambda entry: entry[:2], reverse=True)
        return tuple(case for _, _, case in ordered)


def join_rows(parts: Sequence[Rows], empty: Rows) -> Rows:
    """Put rows of images one below the other.

    Args:
        parts: Of each image; all with the same columns.
        empty: The columns with no rows, for when there are no images.
    """
    return {
        name: np.concatenate([none, *(part[name] for part in parts)])
        for name, none in empty.items()
    }


def mean_or_none(values: NDArray[np.floating]) -> float | None:
    """Average numbers; None of none, which JSON can hold and NaN it cannot."""
    return float(values.mean()) if len(values) else None
