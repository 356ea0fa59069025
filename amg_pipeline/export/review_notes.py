"""What people decided about masks, for the formats that have a place for it."""

from __future__ import annotations

from typing import Any

from amg_pipeline.storage.image_masks import ImageMasks


def review_notes(image: ImageMasks) -> list[dict[str, Any]]:
    """Say for each mask what was decided; nothing where reviews were not asked for.

    `decision` is the verdict, `tags` are words that people gave, and a union that a person made has
    `merged_from`: which masks of the image's row in the run, from 0, it is of.
    """
    if image.reviews is None:
        return [{} for _ in image.counts]
    return [
        {"decision": review.verdict, "tags": list(review.tags)}
        | ({"merged_from": list(review.merged_from)} if review.merged_from else {})
        for review in image.reviews
    ]


def describe(notes: dict[str, Any]) -> str:
    """Write what was decided about a mask as a text; an empty one for nothing."""
    parts = [
        f"{name}={','.join(map(str, value)) if isinstance(value, list) else value}"
        for name, value in notes.items()
        if value
    ]
    return " ".join(parts)
