"""Label Studio: tasks with predictions, as brush strokes or as polygons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from amg_pipeline.export.brush import encode_brush
from amg_pipeline.export.json_text import to_json
from amg_pipeline.export.pixels import decode_windows
from amg_pipeline.export.review_notes import describe, review_notes
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.export.shapes import outline_rings
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks

#: Where Label Studio serves files of its own machine.
LOCAL_FILES = "/data/local-files/?d="
#: Its import takes a file of some 200 MB at once.
_PART_BYTES = 100 * 2**20
_CONFIG = """<View>
  <Image name="image" value="$image" zoom="true"/>
  <{tag} name="label" toName="image">
    <Label value={label}/>
  </{tag}>
</View>
"""


def export_label_studio(
    images: Iterable[ImageMasks],
    destination: Destination,
    settings: ExportSettings,
    tally: ExportTally,
) -> None:
    """Write `tasks-*.json`, each as large as an import takes, and `label_config.xml`."""
    tag = "PolygonLabels" if settings.shape == "polygon" else "BrushLabels"
    config = _CONFIG.format(tag=tag, label=quoteattr(settings.label))
    destination.put("label_config.xml", config.encode())
    tasks = (to_json(_task(image, settings, tally)) for image in images)
    task = next(tasks, None)
    part = 0
    while task is not None or part == 0:
        with destination.stream(f"tasks-{part:05d}.json") as file:
            size, separator = 0, b"[\n"
            while task is not None and size < _PART_BYTES:
                file.write(separator + task)
                size, separator = size + len(task), b",\n"
                task = next(tasks, None)
            file.write(b"\n]\n" if size else b"[]\n")
        part += 1


def address(root: str, image_id: str) -> str:
    """Say where Label Studio finds an image; names in buckets are taken as they are."""
    is_bucket = "://" in root and not root.startswith(("http://", "https://"))
    return root + (image_id if is_bucket else quote(image_id))


def _task(image: ImageMasks, settings: ExportSettings, tally: ExportTally) -> dict[str, Any]:
    root = LOCAL_FILES if settings.image_root is None else settings.image_root
    result = list(_regions(image, settings, tally))
    score = float(np.mean(image.predicted_iou, dtype=np.float64)) if len(image) else 0.0
    return {
        "data": {"image": address(root, image.image_id), "image_id": image.image_id},
        "predictions": [{"model_version": "amg_pipeline", "score": score, "result": result}],
    }


def _regions(
    image: ImageMasks, settings: ExportSettings, tally: ExportTally
) -> Iterator[dict[str, Any]]:
    scores = list(zip(image.predicted_iou.tolist(), image.stability_score.tolist(), strict=True))
    notes = [describe(note) for note in review_notes(image)]
    for index, values in enumerate(_values(image, settings, tally)):
        iou, stability = scores[index]
        text = f"predicted_iou={iou} stability_score={stability} {notes[index]}".rstrip()
        for part, (kind, value) in enumerate(values):
            yield {
                # The parts of a mask begin alike: mask-3, mask-3.1, mask-3.2.
                "id": f"mask-{index}" + (f".{part}" if part else ""),
                "type": kind,
                "from_name": "label",
                "to_name": "image",
                "original_width": image.width,
                "original_height": image.height,
                "image_rotation": 0,
                "value": {**value, kind: [settings.label]},
                "score": iou,
                "meta": {"text": [text]},
            }


def _values(
    image: ImageMasks, settings: ExportSettings, tally: ExportTally
) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    if settings.shape != "polygon":
        for window in decode_windows(image):
            rle = encode_brush(window, height=image.height, width=image.width)
            yield [("brushlabels", {"format": "rle", "rle": rle})]
        return
    percent = 100 / np.array([image.width, image.height])
    for rings in outline_rings(image, settings, tally):
        yield [
            ("polygonlabels", {"points": (ring * percent).tolist(), "closed": True})
            for ring in rings
        ]
