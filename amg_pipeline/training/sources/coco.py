"""Images of a COCO instances file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from amg_pipeline.amg.rle import decode_mask
from amg_pipeline.amg.segmentations import draw_segmentation
from amg_pipeline.errors import ConfigError
from amg_pipeline.evaluation.coco_document import CocoEntry, parse_coco
from amg_pipeline.training.sources.folders import inside, read_json, read_pixels, reading
from amg_pipeline.training.sources.labelled_image import MAX_MASKS, MAX_SIDE, Labelled, shrink
from amg_pipeline.training.sources.segmentations import check_segmentation

ANNOTATIONS_FILE = "instances.json"
IMAGES_FOLDER = "images"
_EXPECTED = "COCO instance annotations"


@dataclass(frozen=True, slots=True)
class CocoImage:
    """An image on disk and its masks.

    Attributes:
        path: The image file.
        height: Rows that the masks are given for.
        width: Columns.
        masks: Segmentations that were checked: lists of polygons, or run-length encodings.
        name: Of the file, as the annotations have it.
        annotations: The file that said so.
    """

    path: Path
    height: int
    width: int
    masks: tuple[Any, ...]
    name: str
    annotations: Path

    def read(self, longest_side: int) -> Labelled:
        """Decode it; see `LabelledImage.read`."""
        size = {"height": self.height, "width": self.width}
        pixels = read_pixels(self.path, **size, listed_in=self.annotations)
        with reading(self.annotations, f"masks of {self.name}"):
            masks = (decode_mask(draw_segmentation(mask, **size)) for mask in self.masks)
            return shrink(pixels, masks, longest_side)


def read_coco(
    path: str | Path,
    images: str | Path | None = None,
    *,
    crowd: Literal["ignore", "take"] = "ignore",
) -> list[CocoImage]:
    """List the images of COCO instance annotations; no image is opened.

    Annotations without a mask, as boxes alone have none, and masks without an area are left out.
    What is kept are paths and segmentations: in memory, as much as about the file itself.

    Args:
        path: The JSON file, or a folder with `instances.json` and `images/`.
        images: Folder that the names of images are relative to; None for `images/` beside the
            file.
        crowd: Whether annotations with `iscrowd`, which outline many things at once, are masks.

    Returns:
        The images in the file's order.

    Raises:
        ConfigError: If the file is missing, is no such JSON, names an image outside `images`, has
            two images of one id or annotations of an image that it does not list.
    """
    if crowd not in ("ignore", "take"):
        raise ConfigError(f'crowd must be "ignore" or "take". Received: {crowd!r}.')
    annotations = Path(path)
    if annotations.is_dir():
        annotations = annotations / ANNOTATIONS_FILE
    if not annotations.is_file():
        raise ConfigError(
            f"Expected {ANNOTATIONS_FILE} and {IMAGES_FOLDER}/ in {annotations.parent}. Received: "
            f"no {annotations.name}. Name a folder in COCO's format, or its JSON file."
        )
    folder = annotations.parent / IMAGES_FOLDER if images is None else Path(images)
    content = read_json(annotations, _EXPECTED)
    entries = parse_coco(
        content, place=str(annotations), max_side=MAX_SIDE, takes_crowds=crowd == "take"
    )
    with reading(annotations, _EXPECTED):
        return [_image_of(entry, annotations, folder) for entry in entries]


def _image_of(entry: CocoEntry, annotations: Path, folder: Path) -> CocoImage:
    size = {"height": entry.height, "width": entry.width}
    masks = tuple(
        mask
        for segmentation in entry.segmentations
        for mask in check_segmentation(segmentation, **size)
    )
    if len(masks) > MAX_MASKS:
        raise ValueError(f"{entry.name!r} with {len(masks)} masks")
    path = inside(folder, entry.name)
    return CocoImage(path, entry.height, entry.width, masks, entry.name, annotations)
