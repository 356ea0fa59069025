"""Images with people's segments, from the formats in which they are stored.

- `coco`: `images` is the folder of the files that `file_name` names, `annotations` the JSON file of
  instances.
- `bsds`: `images` is a folder of photos, `annotations` one of `.mat` files of the same names.
- `masks`: `images` is a folder of images; `annotations` one that has, for each image, a PNG of the
  same name whose values are labels, or a folder of that name with a PNG per mask.

Places are paths or URIs. What files say is checked before it is used; names that lead out of a
folder are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amg_pipeline.errors import ConfigError
from amg_pipeline.evaluation.annotated import AnnotatedImage
from amg_pipeline.evaluation.bsds import read_bsds
from amg_pipeline.evaluation.coco_instances import read_coco_instances
from amg_pipeline.evaluation.mask_folders import read_mask_folder
from amg_pipeline.evaluation.photo_folder import PhotoFolder
from amg_pipeline.storage.uris import redact

_READERS: dict[str, Callable[[PhotoFolder, str], list[AnnotatedImage]]] = {
    "coco": read_coco_instances,
    "bsds": read_bsds,
    "masks": read_mask_folder,
}
FORMATS = tuple(_READERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Which images of a data set are measured.

    Attributes:
        sample: A repeatable random choice of so many; None for all.
        sample_seed: Another seed chooses others.
        limit: Only the first so many of these, in order of their ids.
    """

    sample: int | None = None
    sample_seed: int = 0
    limit: int | None = None

    def choose(self, images: Sequence[AnnotatedImage]) -> list[AnnotatedImage]:
        """Choose, in order of ids."""

        def rank(image: AnnotatedImage) -> bytes:
            name = f"{self.sample_seed}\0{image.image_id}"
            return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()

        chosen = sorted(images, key=rank)[: self.sample]
        return sorted(chosen, key=lambda image: image.image_id)[: self.limit]


_ALL = Subset()


def open_dataset(
    format: str,  # noqa: A002
    *,
    images: str,
    annotations: str,
    exif_orientation: bool = True,
    subset: Subset = _ALL,
) -> list[AnnotatedImage]:
    """List the images of a data set; each is read when it is needed.

    Args:
        format: One of `FORMATS`.
        images: Where the images are.
        annotations: Where their annotations are.
        exif_orientation: Whether images are turned upright as their EXIF data say.
        subset: Which of them.

    Raises:
        ConfigError: If nothing is there, or not what the format has.
        StorageError: If it cannot be read.
    """
    if format not in _READERS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}. Received: {format!r}")
    folder = PhotoFolder(images, exif_orientation=exif_orientation)
    found = subset.choose(_READERS[format](folder, annotations))
    if not found:
        raise ConfigError(
            f"A data set of format {format} must have an image with annotations. Received: none "
            f"at {redact(images)} with {redact(annotations)}"
        )
    return found
