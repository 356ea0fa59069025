"""Pictures with alpha channels, as clip art has them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

#: Colours of the disc's left and right half.
LEFT, RIGHT = (220, 30, 30), (30, 60, 220)


def write_disc(path: Path, *, side: int = 64, margin: int = 8) -> Path:
    """Write a disc of two colours on nothing; what is clear is black."""
    image = Image.new("RGBA", (side, side))
    pen, frame = ImageDraw.Draw(image), (margin, margin, side - margin - 1, side - margin - 1)
    pen.pieslice(frame, 90, 270, fill=LEFT)
    pen.pieslice(frame, 270, 450, fill=RIGHT)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path
