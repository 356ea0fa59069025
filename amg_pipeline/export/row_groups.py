"""Images in groups of some thousand masks, and the groups in files of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from amg_pipeline.storage.derived_tables import TableWriter
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks


def group_images(
    images: Iterable[ImageMasks], *, masks: int, images_at_most: int
) -> Iterator[list[ImageMasks]]:
    """Gather consecutive images until they have so many masks, or are so many."""
    group: list[ImageMasks] = []
    waiting = 0
    for image in images:
        group.append(image)
        waiting += len(image)
        if waiting >= masks or len(group) >= images_at_most:
            yield group
            group, waiting = [], 0
    if group:
        yield group


def write_parts(
    tables: Iterator[Any],
    destination: Destination,
    name_part: Callable[[int], str],
    *,
    schema: Any,
    groups: int,
) -> None:
    """Write tables as row groups, so many to a file; without any, a file without rows.

    Args:
        tables: With `schema`.
        destination: Where to.
        name_part: Gives the key of the n-th file.
        schema: Columns of all files.
        groups: Row groups of a file.
    """
    table = next(tables, None)
    part = 0
    while table is not None or part == 0:
        with destination.stream(name_part(part)) as file, TableWriter(file, schema) as writer:
            for _ in range(groups):
                if table is None:
                    break
                writer.write(table)
                table = next(tables, None)
        part += 1
