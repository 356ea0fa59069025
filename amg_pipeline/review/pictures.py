"""The pixels of a run's images for the page, and nothing else of their files.

What the browser gets is drawn anew from the pixels, upright as they were for the run: no byte of a
file that somebody else made is passed on, and formats that browsers do not know are shown as well.
"""

from __future__ import annotations

import io
import threading

from PIL import Image

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ImageDecodeError
from amg_pipeline.records import ImageRef
from amg_pipeline.storage.image_masks import ImageMasks
from amg_pipeline.storage.images import load_image

#: The browser keeps what it has seen; here is kept what it is about to ask for again.
_PICTURES_KEPT = 4
_QUALITY = 88
#: How much larger than the result a first, rough reduction leaves an image.
_REDUCING_GAP = 2.0


class Pictures:
    """Images as JPEG, shrunk to what a page can show.

    Args:
        settings: Those of the run, which say how its images are read.
        max_side: Pixels of the long side at most.
    """

    def __init__(self, settings: ImageSettings, *, max_side: int) -> None:
        self._settings = settings
        self._max_side = max_side
        self._kept: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def draw(self, image: ImageMasks) -> bytes:
        """Read an image and draw it as JPEG.

        Raises:
            ImageError: If it cannot be read here, or is another one by now.
            StorageError: If its store refuses or fails.
        """
        with self._lock:
            if image.uri in self._kept:
                return self._kept[image.uri]
        data = self._draw(image)
        with self._lock:
            if len(self._kept) >= _PICTURES_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[image.uri] = data
        return data

    def _draw(self, image: ImageMasks) -> bytes:
        pixels = load_image(
            ImageRef(image.image_id, image.uri),
            exif_orientation=self._settings.exif_orientation,
            max_pixels=self._settings.max_pixels,
        ).pixels
        height, width = pixels.shape[:2]
        if (height, width) != (image.height, image.width):
            raise ImageDecodeError(
                f"The image must be {image.width} x {image.height} pixels, as when its masks were "
                f"made. Received: {width} x {height}; it was replaced since"
            )
        picture = Image.fromarray(pixels)
        scale = self._max_side / max(height, width)
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            picture = picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=_QUALITY)
        return file.getvalue()
