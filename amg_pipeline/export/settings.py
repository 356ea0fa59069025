"""What an export is asked for, and what it came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from amg_pipeline.errors import ConfigError

#: How a mask is written, where a format leaves the choice.
Shape = Literal["mask", "polygon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """Choices of an export; a format takes note of those that concern it.

    Attributes:
        label: The one class of all masks: a model that segments anything names nothing.
        shape: How masks are written; None for the format's own default.
        tolerance: Pixels by which a polygon may miss the mask's border; 0 keeps every corner.
        image_root: What stands before an image's id where a format needs an address.
        with_images: Whether the images themselves go along, where a format has a place for them.
        has_reviews: Whether masks come with what people decided, which formats with a place for it
            write along.

    Raises:
        ConfigError: If a value is out of range.
    """

    label: str = "object"
    shape: Shape | None = None
    tolerance: float = 0.5
    image_root: str | None = None
    with_images: bool = False
    has_reviews: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < float("inf"):
            raise ConfigError(f"tolerance must be at least 0 pixels. Received: {self.tolerance}")
        if not self.label.strip() or not self.label.isprintable():
            raise ConfigError(f"label must be a printable name. Received: {self.label!r}")


@dataclass(slots=True)
class ExportTally:
    """What an export came to; counted while it goes.

    Attributes:
        images: Images that were written, those without masks included.
        masks: Masks that were written.
        left_out: Masks that the filters left out.
        failed: Images that have no masks because they failed, by status; they are not written.
        notes: What a format could not keep, in words, and how often.
    """

    images: int = 0
    masks: int = 0
    left_out: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
