"""One image of a run, found by its name, with its pixels and masks."""

from __future__ import annotations

import io
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError, ImageError, StorageError
from amg_pipeline.report.photos import PhotoReader
from amg_pipeline.report.show import blend_layer, draw_layer
from amg_pipeline.selection import Selection
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.image_scores import RowPlace, find_images, read_images_at
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_directory import RunDirectory

#: Names that a message offers instead of one that is not there.
_MOST_OFFERED = 5
_GROUND = 72


@dataclass(frozen=True, slots=True)
class RunImage:
    """An image of a run.

    Attributes:
        pixels: uint8 `(height, width, 3)` RGB; grey where the photo cannot be read.
        masks: Its masks.
        problem: Why the photo is not there; None if it is.
    """

    pixels: NDArray[np.uint8]
    masks: ImageMasks
    problem: str | None

    def write_png(self, path: Path, *, borders: bool = True, seed: int = 0) -> None:
        """Write the image with its masks in its own size.

        Raises:
            StorageError: If the masks are malformed, or nothing can be written there.
        """
        height, width = self.pixels.shape[:2]
        layer = draw_layer(self.masks, height=height, width=width, borders=borders, seed=seed)
        file = io.BytesIO()
        Image.fromarray(blend_layer(self.pixels, layer)).save(file, "PNG")
        try:
            path.write_bytes(file.getvalue())
        except OSError as error:
            raise StorageError(
                f"A picture must be written to {path}. Received: {error.strerror or error}"
            ) from error


def open_run_image(output: str, image_id: str, selection: Selection) -> RunImage:
    """Read one image of a run and its wanted masks.

    Args:
        output: The run's output.
        image_id: The image's name within the run.
        selection: Which of its masks.

    Raises:
        ConfigError: If `output` is no run, or has no such image, or the image failed.
        StorageError: If the run cannot be read.
    """
    plan = RunDirectory.open(output).require_plan()
    dataset = load_masks(output)
    [(_, image)] = read_images_at(dataset, [_find(dataset, image_id)])
    if image.status != "ok":
        raise ConfigError(
            f"IMAGE_ID must be an image with masks. Received: {image_id!r}, which ended as "
            f"{image.status}"
        )
    masks = image.take(selection.choose(image))
    try:
        reader = PhotoReader(ImageSettings.model_validate(plan.config["images"]))
        return RunImage(reader.read(image), masks, None)
    except ImageError as error:
        grey = np.full((image.height, image.width, 3), _GROUND, np.uint8)
        return RunImage(grey, masks, f"the photo cannot be shown: {error}")


def _find(dataset: Any, image_id: str) -> RowPlace:
    like: deque[str] = deque(maxlen=_MOST_OFFERED)
    asked = image_id.rpartition("/")[2].lower()
    count = 0
    for place, name in find_images(dataset):
        if name == image_id:
            return place
        count += 1
        if asked and asked in name.lower() and len(like) < _MOST_OFFERED:
            like.append(name)
    offered = f"; did you mean {', '.join(map(repr, like))}?" if like else ""
    raise ConfigError(
        f"IMAGE_ID must be one of the {count} images that are done. Received: {image_id!r}{offered}"
    )
