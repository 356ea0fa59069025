"""Photos of a data set, below one path or prefix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.evaluation.annotated import AnnotatedImage, Annotation
from amg_pipeline.records import ImageRef
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.listing import image_id_of, is_image_name
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.uris import absolute_uri, redact


class PhotoFolder:
    """Reads photos by their names.

    Args:
        uri: Folder or prefix.
        exif_orientation: Whether images are turned upright as their EXIF data say.
    """

    def __init__(self, uri: str, *, exif_orientation: bool = True) -> None:
        self._store = ObjectStore.open(absolute_uri(uri))
        self._exif_orientation = exif_orientation

    def annotated(
        self, key: str, read_annotations: Callable[[], tuple[Annotation, ...]]
    ) -> AnnotatedImage:
        """Make an image of a file and its annotations; nothing is read yet."""
        ref = ImageRef(image_id_of(key), self._store.uri_of(key))
        return AnnotatedImage(ref.image_id, partial(self._read, ref), read_annotations)

    def by_stem(self) -> Mapping[str, str]:
        """List the photos: their keys by the same without ending.

        Raises:
            ConfigError: If two differ in their endings only, since annotations have another.
        """
        keys: dict[str, str] = {}
        for info in self._store.list():
            if not is_image_name(info.key):
                continue
            stem = stem_of(info.key)
            if stem in keys:
                raise ConfigError(
                    "Images must differ in more than their endings. Received: "
                    f"{keys[stem]!r} and {info.key!r} in {redact(self._store.uri)}"
                )
            keys[stem] = info.key
        return keys

    def _read(self, ref: ImageRef) -> NDArray[np.uint8]:
        return load_image(ref, exif_orientation=self._exif_orientation).pixels


def stem_of(key: str) -> str:
    """Take the ending off a key."""
    return str(PurePosixPath(key).with_suffix(""))
