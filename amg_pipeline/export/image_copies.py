"""The images themselves, for formats that take them along or say where they are."""

from __future__ import annotations

import os

from amg_pipeline.errors import ImageError, StorageError
from amg_pipeline.records import ImageRef
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.images import fetch_image, is_whole_object
from amg_pipeline.storage.listing import image_id_of
from amg_pipeline.storage.uris import is_local, local_path


def fetch_original(image: ImageMasks) -> bytes:
    """Read an image's bytes as they were read for the run.

    Raises:
        StorageError: If it cannot be read any more.
    """
    try:
        return fetch_image(ImageRef(image.image_id, image.uri))
    except ImageError as error:
        raise StorageError(
            f"--with-images needs every image. Received for {image.image_id!r}: {error}"
        ) from error


def path_from(folder_uri: str, key: str, image: ImageMasks) -> str:
    """Say where an image is, as seen from a file that is written.

    Args:
        folder_uri: What `key` is relative to.
        key: The file.
        image: The image.

    Returns:
        A relative path where both are files of this machine; else the image's id. Bytes that are no
        valid UTF-8 are written as in ids.
    """
    if not (is_local(image.uri) and is_local(folder_uri) and is_whole_object(image.uri)):
        return image.image_id
    folder = os.path.dirname(os.path.join(local_path(folder_uri), key))  # noqa: PTH118, PTH120
    # As ids are, since JSON has no place for bytes that are no text.
    return image_id_of(os.path.relpath(local_path(image.uri), folder))
