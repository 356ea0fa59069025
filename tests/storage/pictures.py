"""Pictures to encode and decode."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE, BLACK = (
    (255, 0, 0),
    (0, 128, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def photo(width: int = 24, height: int = 16) -> Image.Image:
    """A smooth gradient, which JPEG keeps within a few levels."""
    rows, columns = np.mgrid[0:height, 0:width]
    channels = [rows * 255 // max(height - 1, 1), columns * 255 // max(width - 1, 1), 0 * rows + 90]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))
