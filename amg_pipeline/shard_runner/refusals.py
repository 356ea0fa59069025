"""Stores that refuse an image: whether it is one object that is meant, or the caller."""

from __future__ import annotations

from amg_pipeline.errors import StorageAccessError
from amg_pipeline.records import ImageRef
from amg_pipeline.storage.uris import place_of


class Refusals:
    """Keeps in mind which buckets have let this process read, and which have refused it.

    A single object may be forbidden; S3 says the same of one that is missing, to those who may not
    list. So a bucket refuses the caller only if it has given nothing yet.
    """

    def __init__(self) -> None:
        self._generous: set[str] = set()
        self._refused: dict[str, str] = {}

    def add_answer(self, ref: ImageRef) -> None:
        """Take note that an image was read, or that nothing is there."""
        self._generous.add(place_of(ref.uri))

    def add(self, ref: ImageRef, error: StorageAccessError) -> None:
        """Take note that an image was refused."""
        self._refused.setdefault(place_of(ref.uri), f"Image {ref.image_id!r}: {error}")

    def check(self) -> None:
        """Make sure that each bucket that has refused an image has also given one.

        Raises:
            StorageAccessError: If one has not: every other image would fare the same.
        """
        for place, message in list(self._refused.items()):
            if place not in self._generous:
                raise StorageAccessError(
                    f"INPUT: {place} must let this machine read some image. Received: none yet. "
                    f"{message}"
                )
