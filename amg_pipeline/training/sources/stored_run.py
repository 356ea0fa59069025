"""Images of a run of our own with the masks that it found, read where the run read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.rle import decode_mask
from amg_pipeline.decisions.verdicts import Verdicts
from amg_pipeline.errors import ConfigError, ImageError
from amg_pipeline.records import ImageRef
from amg_pipeline.selection import Selection, read_wanted_scores
from amg_pipeline.storage.coco_rle import parse_rle
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.image_scores import RowPlace, read_images_at
from amg_pipeline.storage.images import fetch_image
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.uris import redact
from amg_pipeline.training.sources.folders import (
    decode_to_size,
    inside,
    read_pixels,
    reading,
    require_folder,
)
from amg_pipeline.training.sources.labelled_image import Labelled, shrink


@dataclass(frozen=True, slots=True)
class RunImage:
    """An image whose row is read when its masks are asked for.

    Attributes:
        run: The run's shards, as `load_masks` returns them.
        output: The run's output, for messages.
        place: Where the row lies.
        selection: Which masks are taken.
        verdicts: What people decided about them, if that counts.
        images: Folder where the images are now; None for where the run read them.
        name: The image's id within the run.
        height: Rows of pixels.
        width: Columns.
    """

    run: Any
    output: Path
    place: RowPlace
    selection: Selection
    verdicts: Verdicts | None
    images: Path | None
    name: str
    height: int
    width: int

    def read(self, longest_side: int) -> Labelled:
        """Decode it; see `LabelledImage.read`."""
        with reading(self.output, "the masks of a run"):
            [(_, row)] = read_images_at(self.run, [self.place])
            pixels = self._pixels(row)
            if self.verdicts is not None:
                row = self.verdicts.annotate(row)
            chosen = row.take(self.selection.choose(row))
            return shrink(pixels, _decoded(chosen), longest_side)

    def _pixels(self, row: ImageMasks) -> NDArray[np.uint8]:
        size: Any = {"height": self.height, "width": self.width, "listed_in": self.output}
        if self.images is not None:
            return read_pixels(inside(self.images, self.name), **size)
        try:
            data = fetch_image(ImageRef(row.image_id, row.uri))
            return decode_to_size(data, name=self.name, **size)
        except ImageError as error:
            raise ConfigError(
                f"Expected {self.name!r} where the run in {self.output} read it. Received: "
                f"{error}. Name the folder that holds the images now."
            ) from error


def read_run(
    output: str, images: str | Path | None = None, *, selection: Selection | None = None
) -> list[RunImage]:
    """List the images of a run's finished shards; no mask and no image is read.

    Images that failed are left out; those without masks are there, without any.

    Args:
        output: The run's output: a path or URI.
        images: Folder that the images' ids are relative to; None to read each from its address.
        selection: Which images and masks; None for all. With `reviewed="accepted"`, only what
            people kept in `amg review`, their unions of masks included.

    Returns:
        The images in the run's order.

    Raises:
        ConfigError: If `output` is no run, or no image is left.
        StorageError: If a shard cannot be read.
    """
    folder = None if images is None else require_folder(images, "the run's images")
    wanted = selection or Selection()
    run = load_masks(output)
    is_decided = wanted.reviewed is not None
    verdicts = Verdicts.load(output, wanted.reviewers) if is_decided else None
    by_scores = replace(wanted, reviewed=None, reviewers=())
    found = [
        RunImage(
            run,
            Path(redact(output)),
            scores.place,
            wanted,
            verdicts,
            folder,
            scores.image_id,
            scores.height,
            scores.width,
        )
        for scores in read_wanted_scores(run, by_scores)
        if scores.status == "ok" and _is_open(scores.image_id, wanted, verdicts)
    ]
    if not found:
        raise ConfigError(
            f"Expected a run with images to train on in {redact(output)}. Received: none that "
            "match. Run it first, or choose fewer filters."
        )
    return found


def _is_open(image_id: str, selection: Selection, verdicts: Verdicts | None) -> bool:
    """Tell whether an image takes part; one that nobody looked at is neither kept nor rejected."""
    return verdicts is None or selection.reviewed == "unrejected" or verdicts.is_reviewed(image_id)


def _decoded(image: ImageMasks) -> Iterator[NDArray[np.bool_]]:
    for counts in image.counts:
        yield decode_mask(parse_rle(counts, height=image.height, width=image.width))
