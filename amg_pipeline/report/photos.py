"""The photos of a run, read again for its page; one that cannot be read holds nothing up."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError, ImageDecodeError, ImageFetchError, StorageError
from amg_pipeline.records import ImageRef
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.uris import place_of

#: A page can do without a photo, so that little is waited for one.
_RETRY = RetryPolicy(attempts=2, timeout_s=20.0)
#: Photos in a row that a store may fail to give before no more of its are asked for.
_PATIENCE = 3


class PhotoReader:
    """Reads photos as the run did; threads may share it.

    Args:
        settings: How the run read them.
    """

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._failed: Counter[str] = Counter()

    def read(self, image: ImageMasks) -> NDArray[np.uint8]:
        """Read the photo of an image.

        Returns:
            The pixels, uint8 `(height, width, 3)` RGB, of the image's size.

        Raises:
            ImageError: If it cannot be read here and now, or is another one by now.
        """
        place = place_of(image.uri)
        if place and self._failed[place] >= _PATIENCE:
            raise ImageFetchError(f"{place} could not be read for other photos")
        try:
            loaded = load_image(
                ImageRef(image.image_id, image.uri),
                exif_orientation=self._settings.exif_orientation,
                max_pixels=self._settings.max_pixels,
                retry=_RETRY,
            )
        except (StorageError, ConfigError) as error:
            with self._lock:
                self._failed[place] += 1
            raise ImageFetchError(str(error)) from error
        with self._lock:
            self._failed[place] = 0
        height, width = loaded.pixels.shape[:2]
        if (width, height) != (image.width, image.height):
            raise ImageDecodeError(
                f"The photo must be {image.width} x {image.height} pixels, as when its masks were "
                f"made. Received: {width} x {height}; it was replaced since"
            )
        return loaded.pixels
