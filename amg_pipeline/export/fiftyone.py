"""FiftyOne: a folder that its importer of COCO detections reads, with the scores of each mask."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator

from amg_pipeline.export.coco import export_coco
from amg_pipeline.export.json_text import to_json
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks

_MEMORY_BYTES = 16 * 2**20
_COPY_BYTES = 2**20


def export_fiftyone(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
) -> None:
    """Write `labels.json` (COCO) and `data.json`, which says where each image is."""
    with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as places:

        def noted() -> Iterator[ImageMasks]:
            separator = b"{\n"
            for image in images:
                place = (
                    image.uri
                    if settings.image_root is None
                    else (settings.image_root + image.image_id)
                )
                places.write(separator + to_json(image.image_id) + b":" + to_json(place))
                separator = b",\n"
                yield image
            places.write(b"{}\n" if separator == b"{\n" else b"\n}\n")

        export_coco(noted(), destination, settings, tally, key="labels.json")
        places.seek(0)
        with destination.stream("data.json") as file:
            while piece := places.read(_COPY_BYTES):
                file.write(piece)
