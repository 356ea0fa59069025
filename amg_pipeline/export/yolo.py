"""YOLO segmentation: one text file an image, a line with one polygon a mask, and `data.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

import numpy as np
import yaml

from amg_pipeline.export.image_copies import fetch_original
from amg_pipeline.export.names import FileNames
from amg_pipeline.export.polygons import Ring, join_rings
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.export.shapes import centre_rings
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks

BRIDGED = "masks in several parts became one polygon, with bridges between the parts"
RENAMED = "images share their name but for the ending; their labels have longer names"


def export_yolo(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
) -> None:
    """Write `labels/*.txt` and `data.yaml`; with `with_images`, `images/*` too.

    A polygon goes from pixel to pixel, in parts of the image's size: whoever fills it with OpenCV
    or Pillow, after rounding to whole pixels or cutting off, gets the mask's pixels.
    """
    names = FileNames()
    for image in images:
        name, is_own = names.choose(image.image_id)
        tally.notes[RENAMED] += not is_own
        lines = [
            _line(rings, image, tally) for rings in centre_rings(image, settings, tally) if rings
        ]
        destination.put(f"labels/{name}.txt", "".join(lines).encode())
        if settings.with_images:
            ending = PurePosixPath(image.image_id).suffix
            destination.put(f"images/{name}{ending}", fetch_original(image))
    # Without a path of its own, folders are looked for beside this file.
    document = {"train": "images", "val": "images", "names": {0: settings.label}}
    destination.flush()
    destination.put("data.yaml", yaml.safe_dump(document, sort_keys=False).encode())


def _line(rings: list[Ring], image: ImageMasks, tally: ExportTally) -> str:
    ring, _ = join_rings(rings)
    tally.notes[BRIDGED] += len(rings) > 1
    # Within the pixel, and nearer to its corner: some readers cut off, others round.
    relative = (ring + 0.25) / np.array([image.width, image.height])
    return "0 " + " ".join(f"{value:.6f}" for value in relative.ravel().tolist()) + "\n"
