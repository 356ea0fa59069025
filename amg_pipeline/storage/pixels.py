"""Decoded images of every kind to 8-bit RGB, as viewers show them on a white page.

Colour profiles are not applied, as in the reference's own loader.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

_WHITE = (255, 255, 255, 255)
_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_TRANSPARENCY_MODES = frozenset({"1", "L", "P", "RGB"})
_TIFF_PHOTOMETRIC = 262
_TIFF_WHITE_IS_ZERO = 0

#: How an image of each EXIF orientation is turned upright, and how that is undone.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_AS_STORED = {
    **_UPRIGHT,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


def image_to_rgb(image: Image.Image, *, exif_orientation: bool) -> NDArray[np.uint8]:
    """Turn a loaded or loadable image into pixels.

    Transparency is composited over white. 16-bit gray keeps its upper byte, as Pillow does for
    16-bit colour. Integer and float images of more range than that have no fixed white: floats
    between 0 and 1 are black to white, anything else is stretched from minimum to maximum.

    Args:
        image: As Pillow opened it.
        exif_orientation: Whether to turn the image upright.

    Returns:
        uint8 `(height, width, 3)`, contiguous and writable.

    Raises:
        OSError, ValueError, ...: Whatever Pillow raises for damaged data.
    """
    # Pillow turns TIFF upright while loading, and nothing else; its orientation is gone then.
    is_upright = image.format == "TIFF"
    if not is_upright:
        # Before its EXIF data: reading a PNG's loads it, and would take its damage for theirs.
        image.load()
    orientation = _orientation(image)
    image.load()
    rgb = _convert(image)
    if exif_orientation and not is_upright and orientation in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[orientation])
    elif not exif_orientation and is_upright and orientation in _AS_STORED:
        rgb = rgb.transpose(_AS_STORED[orientation])
    return np.array(rgb, dtype=np.uint8, order="C")


def _orientation(image: Image.Image) -> int:
    """Read the EXIF orientation; damaged EXIF data count as upright, as viewers take them."""
    try:
        value = image.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError):
        return 1
    return value if isinstance(value, int) else 1


def _convert(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode.startswith("I;16"):
        return _gray16(image)
    if mode in ("I", "F"):
        return Image.fromarray(_stretch(np.asarray(image), is_png=image.format == "PNG"))
    if mode == "LAB":
        return _lab_to_rgb(image)
    if mode in _ALPHA_MODES or (mode in _TRANSPARENCY_MODES and "transparency" in image.info):
        return _over_white(image)
    return image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    page = Image.new("RGBA", rgba.size, _WHITE)
    return Image.alpha_composite(page, rgba).convert("RGB")


def _gray16(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    gray = (values.astype(np.uint16) >> 8).astype(np.uint8)
    tags: Any = getattr(image, "tag_v2", {})
    if tags.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO:
        gray = 255 - gray
    return Image.fromarray(gray).convert("RGB")


def _stretch(values: NDArray[Any], *, is_png: bool) -> NDArray[np.uint8]:
    """Scale 32-bit values to 8 bits, one channel repeated three times."""
    data = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    lowest, highest = float(data.min()), float(data.max())
    if is_png or (values.dtype.kind == "i" and lowest >= 0 and 255 < highest <= 65535):
        scaled = np.floor(data / 256.0)
    elif values.dtype.kind == "i" and lowest >= 0 and highest <= 255:
        scaled = data
    elif values.dtype.kind == "f" and lowest >= 0.0 and highest <= 1.0:
        scaled = np.rint(data * 255.0)
    else:
        scaled = np.rint((data - lowest) * (255.0 / max(highest - lowest, 1e-300)))
    gray = np.clip(scaled, 0, 255).astype(np.uint8)
    return np.repeat(gray[:, :, np.newaxis], 3, axis=2)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError("the Lab colours could not be converted")
    return converted
