"""Reads cut-out pictures, such as clip art: images whose alpha channel is an exact mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.noise import Floats

#: Pictures are kept at up to this many pixels; none is shown larger.
_READ_SIDE = 512
#: What covers less of its own frame is a line or a speck, and what covers all of it has no outline.
_LEAST_COVER, _LARGEST_COVER = 0.15, 0.97
_OPAQUE = 128
#: Larger pictures take seconds to read.
_MOST_PIXELS = 10_000_000


@dataclass(frozen=True, slots=True)
class Cutout:
    """A picture without its surroundings.

    Attributes:
        pixels: RGBA, uint8 `(height, width, 4)`, cut to what is opaque.
    """

    pixels: NDArray[np.uint8]

    def turned(
        self, *, side: float, aspect: float, angle: float, mirrored: bool
    ) -> tuple[Floats, Floats]:
        """Give it in another size and direction.

        Args:
            side: Longer side in pixels, before it is turned.
            aspect: Factor of the width over the height.
            angle: In degrees, against the clock.
            mirrored: Whether left and right change, before that.

        Returns:
            Coverage `(h, w)` and planar RGB `(3, h, w)`, both in [0, 1].
        """
        height, width = self.pixels.shape[:2]
        scale = side / max(height, width)
        size = (
            max(2, round(width * scale * aspect**0.5)),
            max(2, round(height * scale / aspect**0.5)),
        )
        # Colours times coverage, so that none of what is clear bleeds into the rim.
        image = Image.fromarray(self.pixels, "RGBA").convert("RGBa")
        if mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = image.resize(size, Image.Resampling.BILINEAR)
        bands = [
            np.asarray(band.rotate(angle, Image.Resampling.BILINEAR, expand=True), np.float32)
            for band in image.split()
        ]
        alpha = bands[3] / np.float32(255)
        colours = np.stack(bands[:3]) / np.maximum(bands[3], np.float32(1))
        return alpha, np.clip(colours, 0, 1)


def read_cutout(path: Path) -> Cutout | None:
    """Read a picture; None if it is huge or its alpha channel cuts nothing out of it.

    Raises:
        ConfigError: If there is no such picture.
    """
    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            image.thumbnail((_READ_SIDE, _READ_SIDE))
            pixels = np.asarray(image.convert("RGBA"))
    except Image.DecompressionBombError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"Expected a picture with an alpha channel in {path}. Received: {error}. "
            "Repair the file or take it out."
        ) from error
    opaque = pixels[..., 3] >= _OPAQUE
    rows, columns = (np.flatnonzero(opaque.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    frame = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    if not _LEAST_COVER <= opaque[frame].mean() <= _LARGEST_COVER:
        return None
    return Cutout(pixels[frame])
