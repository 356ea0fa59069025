"""Photos from their address to pixels; every fault of one becomes an `ImageError`.

Messages are part of the output, so they hold nothing that changes from run to run: no address, no
temporary path, no memory pointer (which Pillow's own messages contain).
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.errors import (
    ImageDecodeError,
    ImageFetchError,
    ImageNotFoundError,
    ImageTooLargeError,
    StorageAccessError,
    StorageError,
    TransientStorageError,
)
from amg_pipeline.records import DecodedImage, ImageRef
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.object_store import read_uri
from amg_pipeline.storage.parquet_images import RowAddress
from amg_pipeline.storage.parquet_rows import read_row
from amg_pipeline.storage.pixels import image_to_rgb
from amg_pipeline.storage.tar_members import TarAddress, read_member

#: Pillow's names of what is read. Others are refused: some of its readers start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")

#: What Pillow raises for data that are no image, or a damaged one. Not MemoryError: that is no
#: fact of the image.
_DECODE_FAULTS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    EOFError,
    struct.error,
    zlib.error,
)
#: Pillow's message for an image of width or height zero.
_NO_PIXELS = "not identified by this driver"
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_DEFAULT_RETRY = RetryPolicy()


def load_image(
    ref: ImageRef,
    *,
    exif_orientation: bool = True,
    max_pixels: int = 200_000_000,
    retry: RetryPolicy = _DEFAULT_RETRY,
) -> DecodedImage:
    """Fetch and decode one image.

    Args:
        ref: Where it lies.
        exif_orientation: Whether to turn it upright as its EXIF data say.
        max_pixels: More than these are not decoded.
        retry: Bounds of the retries of transient faults.

    Returns:
        The pixels, uint8 `(height, width, 3)` RGB.

    Raises:
        ImageNotFoundError: If nothing lies at the address.
        ImageFetchError: If the bytes cannot be read, now or later.
        TransientStorageError: If the store kept failing in a way that may pass: no fact of the
            image, so the attempt at its shard fails.
        ImageTooLargeError: If it has more than `max_pixels`.
        ImageDecodeError: If the bytes are no image, or a damaged one.
    """
    data = fetch_image(ref, retry=retry)
    pixels = decode_image(data, exif_orientation=exif_orientation, max_pixels=max_pixels)
    return DecodedImage(ref, pixels)


def decode_image(
    data: bytes, *, exif_orientation: bool = True, max_pixels: int = 200_000_000
) -> NDArray[np.uint8]:
    """Decode the bytes of a JPEG, PNG, WebP, TIFF, BMP or GIF (first frame).

    Args:
        data: The whole file.
        exif_orientation: Whether to turn the image upright as its EXIF data say.
        max_pixels: More than these are not decoded.

    Returns:
        uint8 `(height, width, 3)` RGB, contiguous.

    Raises:
        ImageTooLargeError: If the image has more than `max_pixels`.
        ImageDecodeError: If the bytes are no image, or a damaged one.
    """
    if not data:
        raise ImageDecodeError("The file must hold an image. Received: zero bytes")
    try:
        with _pixel_limit(max_pixels), _open(data) as image:
            _check_size(image.size, max_pixels)
            return image_to_rgb(image, exif_orientation=exif_orientation)
    except _BOMBS as error:
        raise ImageTooLargeError(
            f"An image may have at most {max_pixels} pixels. Received: more. "
            "Raise images.max_pixels to read it"
        ) from error
    except _DECODE_FAULTS as error:
        raise ImageDecodeError(
            f"The file must hold a complete, undamaged image. Received: {_reason(error)}"
        ) from error


def is_whole_object(uri: str) -> bool:
    """Tell whether an image's address is that of a file, and not of a part of one."""
    return TarAddress.parse(uri) is None and RowAddress.parse(uri) is None


def fetch_image(ref: ImageRef, *, retry: RetryPolicy = _DEFAULT_RETRY) -> bytes:
    """Read the bytes of one image, whatever they are.

    Raises:
        ImageNotFoundError: If nothing lies at the address.
        ImageFetchError: If the bytes cannot be read, now or later.
        TransientStorageError: If the store kept failing in a way that may pass.
        StorageAccessError: If an object store refuses the caller.
    """
    try:
        if (member := TarAddress.parse(ref.uri)) is not None:
            return read_member(member, ref.etag, retry=retry)
        if (row := RowAddress.parse(ref.uri)) is not None:
            return read_row(row, ref.etag, retry=retry)
        return read_uri(ref.uri, retry=retry)
    except FileNotFoundError as error:
        raise ImageNotFoundError(
            "An image must lie at its address. Received: nothing is there"
        ) from error
    except (TransientStorageError, StorageAccessError):
        # A store that refuses the caller may refuse every other image too.
        raise
    except StorageError as error:
        raise ImageFetchError(str(error)) from error
    except ValueError as error:
        # What clients raise for an address that they cannot take apart; they quote it.
        raise ImageFetchError(
            "An image's address must be well formed, and its file readable. Received: one that "
            f"ends in {type(error).__name__}"
        ) from error


def _open(data: bytes) -> Image.Image:
    """Open without decoding, and without Pillow's own size check, which has another limit."""
    Image.init()
    for name in FORMATS:
        factory, accepts = Image.OPEN.get(name, (None, None))
        # `accepts` returns a text in place of False where a codec is missing.
        if factory is not None and (accepts is None or accepts(data[:16]) is True):
            return factory(io.BytesIO(data), "")
    raise ImageDecodeError(
        f"The file must be one of {', '.join(FORMATS)}. Received: {_guess(data)}"
    )


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"An image may have at most {max_pixels} pixels. Received: {width} x {height}. "
            "Raise images.max_pixels to read it"
        )


def _guess(data: bytes) -> str:
    start = data[:512]
    if start.startswith(b"%PDF"):
        return "a PDF"
    if b"\0" not in start and all(byte >= 32 or byte in b"\t\n\r\f" for byte in start):
        return "text"
    return "something else"


def _reason(error: BaseException) -> str:
    """Quote Pillow where its message is sure to be the same in every run."""
    text = str(error)
    if text == _NO_PIXELS:
        return "a header that promises no pixels"
    is_stable = 0 < len(text) <= 200 and not any(sign in text for sign in ("0x", "<", "/", "\\"))
    return (
        f"{text} ({type(error).__name__})"
        if is_stable
        else f"data that end in {type(error).__name__}"
    )


class _Limit:
    """Pillow's own limit while images are being decoded.

    It is one variable of Pillow for all threads and formats, and readers of WebP, TIFF and GIF
    look at it. It is raised while any image is being decoded, and put back afterwards.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active = 0
        self._outside: int | None = None

    def enter(self, max_pixels: int) -> None:
        with self._lock:
            if self._active == 0:
                self._outside = Image.MAX_IMAGE_PIXELS
                Image.MAX_IMAGE_PIXELS = max_pixels
            else:
                Image.MAX_IMAGE_PIXELS = max(max_pixels, Image.MAX_IMAGE_PIXELS or 0)
            self._active += 1

    def leave(self) -> None:
        with self._lock:
            self._active -= 1
            if self._active == 0:
                Image.MAX_IMAGE_PIXELS = self._outside


_LIMIT = _Limit()


@contextmanager
def _pixel_limit(max_pixels: int) -> Iterator[None]:
    _LIMIT.enter(max_pixels)
    try:
        yield
    finally:
        _LIMIT.leave()
