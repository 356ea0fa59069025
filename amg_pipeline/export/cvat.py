"""CVAT: annotations of an existing task, as the zip that its import "COCO 1.0" takes."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable

from amg_pipeline.export.coco import write_coco
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks

_MEMBER = "annotations/instances_default.json"


def export_cvat(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
    *,
    key: str = "annotations.zip",
) -> None:
    """Write a zip with COCO instances; see `export_coco`."""
    # A date of its own would make each export differ.
    member = zipfile.ZipInfo(_MEMBER)
    member.compress_type = zipfile.ZIP_DEFLATED
    with (
        destination.stream(key) as file,
        zipfile.ZipFile(file, "w") as archive,
        archive.open(member, "w", force_zip64=True) as content,
    ):
        write_coco(images, content, settings, tally)
