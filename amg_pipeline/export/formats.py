"""All formats by name, and the one way to write any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from amg_pipeline.decisions.verdicts import Verdicts
from amg_pipeline.errors import ConfigError
from amg_pipeline.export.coco import export_coco
from amg_pipeline.export.cvat import export_cvat
from amg_pipeline.export.fiftyone import export_fiftyone
from amg_pipeline.export.hf_datasets import export_hf_datasets
from amg_pipeline.export.label_studio import export_label_studio
from amg_pipeline.export.labelme import export_labelme
from amg_pipeline.export.parquet_masks import export_parquet_masks
from amg_pipeline.export.png import export_png
from amg_pipeline.export.sa1b import export_sa1b
from amg_pipeline.export.settings import ExportSettings, ExportTally, Shape
from amg_pipeline.export.yolo import export_yolo
from amg_pipeline.selection import Selection, read_wanted
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.mask_table import load_masks

OnImage = Callable[[int], None]

EMPTY = "masks had no pixel and were left out"
UNSEEN = "images were left out that nobody has reviewed"
UNDECIDED = "masks of reviewed images have no decision yet"
DISPUTED = "masks were accepted by one reviewer and rejected by another, and count as rejected"


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One format.

    Attributes:
        write: Writes images to a destination; a format of a single file also takes its `key`.
        summary: What it is, in a few words.
        shapes: How it can write a mask, its default first.
        ending: Of DEST where that may be a single file; None where it is always a folder.
        takes_images: Whether it has a place for the images themselves.
        takes_image_root: Whether it says where images are.
    """

    write: Callable[..., None]
    summary: str
    shapes: tuple[Shape, ...] = ("mask",)
    ending: str | None = None
    takes_images: bool = False
    takes_image_root: bool = False


FORMATS: Mapping[str, ExportFormat] = {
    "coco": ExportFormat(
        export_coco, "COCO instances, one JSON file", ("mask", "polygon"), ending=".json"
    ),
    "sa1b": ExportFormat(export_sa1b, "a JSON file an image in SA-1B's layout"),
    "yolo": ExportFormat(export_yolo, "YOLO segmentation labels", ("polygon",), takes_images=True),
    "label-studio": ExportFormat(
        export_label_studio,
        "Label Studio tasks with predictions",
        ("mask", "polygon"),
        takes_image_root=True,
    ),
    "labelme": ExportFormat(
        export_labelme,
        "a LabelMe JSON file an image",
        ("polygon", "mask"),
        takes_image_root=True,
    ),
    "cvat": ExportFormat(
        export_cvat, "a zip for CVAT's import COCO 1.0", ("mask", "polygon"), ending=".zip"
    ),
    "fiftyone": ExportFormat(
        export_fiftyone, "a folder for FiftyOne", ("mask", "polygon"), takes_image_root=True
    ),
    "png": ExportFormat(export_png, "a 16-bit PNG an image, disjoint"),
    "parquet-masks": ExportFormat(export_parquet_masks, "Parquet with one row a mask, for SQL"),
    "hf-datasets": ExportFormat(
        export_hf_datasets,
        "a folder for Hugging Face datasets",
        takes_images=True,
        takes_image_root=True,
    ),
}


def export_run(
    name: str,
    output: str,
    dest: str,
    *,
    selection: Selection,
    settings: ExportSettings,
    overwrite: bool = False,
    on_image: OnImage | None = None,
) -> ExportTally:
    """Write the masks of a run in another format; memory does not grow with the run.

    Args:
        name: Of `FORMATS`.
        output: The run's output.
        dest: Folder or URI prefix, or a file where the format has an ending for one.
        selection: Which images and masks.
        settings: Choices of the format.
        overwrite: Whether something may be at `dest`; files of the same names are replaced.
        on_image: Called after each image with the number of its masks.

    Returns:
        What was written, and what was not.

    Raises:
        ConfigError: If a choice does not fit the format, `output` is no run, or `dest` is taken.
        StorageError: If something cannot be read or written.
    """
    chosen = _format(name, settings)
    dataset = load_masks(output)
    verdicts = None
    if selection.reviewed is not None:
        verdicts = Verdicts.load(output, selection.reviewers)
        settings = replace(settings, has_reviews=True)
    write, tally = chosen.write, ExportTally()
    if chosen.ending is not None and dest.lower().endswith(chosen.ending):
        destination, key = Destination.open_file(dest, overwrite=overwrite)
        write = partial(write, key=key)
    else:
        destination = Destination.open_folder(dest, overwrite=overwrite)
    with destination:
        images = read_wanted(dataset, selection, verdicts)
        write(_wanted(images, selection, tally, on_image), destination, settings, tally)
    return tally


def _format(name: str, settings: ExportSettings) -> ExportFormat:
    chosen = FORMATS.get(name)
    if chosen is None:
        raise ConfigError(f"FORMAT must be one of {', '.join(FORMATS)}. Received: {name!r}")
    if settings.shape is not None and settings.shape not in chosen.shapes:
        raise ConfigError(
            f"{name} writes masks as {chosen.shapes[0]}. Received: --as {settings.shape}"
        )
    if settings.with_images and not chosen.takes_images:
        raise ConfigError(f"{name} has no place for images. Received: --with-images")
    if settings.image_root is not None and not chosen.takes_image_root:
        raise ConfigError(f"{name} names images by their ids. Received: --image-root")
    return chosen


def _wanted(
    images: Iterable[ImageMasks],
    selection: Selection,
    tally: ExportTally,
    on_image: OnImage | None,
) -> Iterator[ImageMasks]:
    """Choose what is wanted, and count."""
    for image in images:
        if image.status != "ok":
            tally.failed[image.status] += 1
            continue
        if selection.leaves_out(image):
            tally.notes[UNSEEN] += 1
            continue
        _count_reviews(image, tally)
        chosen = selection.choose(image)
        visible = chosen[image.area[chosen] > 0]
        tally.notes[EMPTY] += len(chosen) - len(visible)
        tally.left_out += len(image) - len(chosen)
        tally.images += 1
        tally.masks += len(visible)
        yield image if len(visible) == len(image) else image.take(np.asarray(visible))
        if on_image is not None:
            on_image(len(visible))


def _count_reviews(image: ImageMasks, tally: ExportTally) -> None:
    if image.reviews is not None:
        tally.notes[UNDECIDED] += sum(review.verdict is None for review in image.reviews)
        tally.notes[DISPUTED] += sum(review.is_disputed for review in image.reviews)
