"""Images that have no masks because they failed, grouped by what went wrong."""

from __future__ import annotations

from dataclasses import dataclass, field

from amg_pipeline.storage.image_scores import ImageScores

#: Images of a group that a page names.
MOST_NAMED = 100


@dataclass(slots=True)
class FailureGroup:
    """Images of one status whose errors are of one type.

    Attributes:
        status: Theirs.
        error_type: The error's; None where a row has none.
        count: Number of all.
        named: Names and messages of the first ones.
    """

    status: str
    error_type: str | None
    count: int = 0
    named: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Failures:
    """All failures of a run, in memory that does not grow with them."""

    _groups: dict[tuple[str, str], FailureGroup] = field(default_factory=dict)

    def add(self, image: ImageScores) -> None:
        """Count an image that failed."""
        key = (image.status, image.error_type or "")
        if key not in self._groups:
            self._groups[key] = FailureGroup(image.status, image.error_type)
        group = self._groups[key]
        group.count += 1
        if len(group.named) < MOST_NAMED:
            group.named.append((image.image_id, image.error_message or ""))

    @property
    def count(self) -> int:
        """Number of images that failed."""
        return sum(group.count for group in self._groups.values())

    def groups(self) -> list[FailureGroup]:
        """Give the groups, the largest first."""
        return sorted(self._groups.values(), key=lambda g: (-g.count, g.status, g.error_type or ""))
