"""Parquet with one row a mask and plain columns, for SQL."""

from __future__ import annotations

from collections.abc import Iterable

from amg_pipeline.export.row_groups import group_images, write_parts
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.storage.derived_tables import FLAT_SCHEMA, REVIEWED_SCHEMA, flat_table
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks

_GROUP_MASKS = 32_768
_GROUP_IMAGES = 4_096
_GROUPS = 32


def export_parquet_masks(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
) -> None:
    """Write `masks-*.parquet`, of a million masks each."""
    groups = group_images(images, masks=_GROUP_MASKS, images_at_most=_GROUP_IMAGES)
    tables = (flat_table(group, has_reviews=settings.has_reviews) for group in groups)
    write_parts(
        (table for table in tables if table.num_rows),
        destination,
        "masks-{:05d}.parquet".format,
        schema=REVIEWED_SCHEMA if settings.has_reviews else FLAT_SCHEMA,
        groups=_GROUPS,
    )
