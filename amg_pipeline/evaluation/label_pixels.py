"""Label maps as people save them: numbers, indices of a palette, or colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Pillow's names of pixels that are whole numbers.
_NUMBERS = frozenset({"1", "L", "P", "I", "I;16", "I;16B", "I;16L"})
_COLOURS = frozenset({"RGB", "RGBA"})
#: A label map of more colours is a photograph, or was compressed like one.
MAX_COLOURS = 20_000


def labels_of_picture(
    picture: Image.Image, *, max_colours: int | None = None
) -> NDArray[np.integer]:
    """Take the pixels of a picture as labels.

    Args:
        picture: Of 1, 8, 16 or 32 bits, of palette colours, or of colours of 8 bits a channel.
        max_colours: More are refused; None for any, where only black counts.

    Returns:
        `(height, width)` of the picture's own whole numbers; a colour is one int32 number of its
        red, green and blue, red highest, so that black is 0. Opacity is left out.

    Raises:
        ValueError: If pixels are neither, or of more than `max_colours` colours.
        OSError, SyntaxError: If the picture cannot be decoded.
    """
    if picture.mode == "LA":
        picture = picture.convert("L")
    if picture.mode in _NUMBERS:
        labels = np.asarray(picture)
        return labels.astype(np.uint8) if labels.dtype == bool else labels
    if picture.mode not in _COLOURS:
        raise ValueError(
            f"pixels of mode {picture.mode}, which are neither whole numbers nor colours"
        )
    picture = picture.convert("RGB")
    if max_colours is not None and picture.getcolors(max_colours) is None:
        raise ValueError(f"more than {max_colours} colours, as photographs have")
    red, green, blue = np.moveaxis(np.asarray(picture).astype(np.int32), 2, 0)
    colours: NDArray[np.int32] = red << 16 | green << 8 | blue
    return colours
