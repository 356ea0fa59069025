"""Images corrected in LabelMe: a JSON file each, with polygons or pictures of masks."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from amg_pipeline.errors import ConfigError, ImageError
from amg_pipeline.training.sources.folders import (
    checked_size,
    decode_to_size,
    inside,
    list_files,
    read_json,
    read_pixels,
    reading,
    require_folder,
)
from amg_pipeline.training.sources.labelled_image import MAX_MASKS, Labelled, shrink

_EXPECTED = "shapes as LabelMe saves them"
#: A line or a point encloses nothing.
_AREAS = ("polygon", "rectangle", "circle", "mask")


@dataclass(frozen=True, slots=True)
class LabelmeImage:
    """An image whose JSON file is opened when something of it is asked for.

    Attributes:
        document: The JSON file.
        images: Folder that images must lie in; None for that of the JSON file.
        name: Of the JSON file, below the folder that was listed.
    """

    document: Path
    images: Path | None
    name: str

    @property
    def height(self) -> int:
        """Rows of pixels."""
        return self._size(read_json(self.document, _EXPECTED))[0]

    @property
    def width(self) -> int:
        """Columns of pixels."""
        return self._size(read_json(self.document, _EXPECTED))[1]

    def read(self, longest_side: int) -> Labelled:
        """Decode it; see `LabelledImage.read`. Shapes of one `group_id` are one mask."""
        content = read_json(self.document, _EXPECTED)
        size = self._size(content)
        pixels = self._pixels(content, size)
        with reading(self.document, _EXPECTED):
            groups = _grouped(content["shapes"])
            if len(groups) > MAX_MASKS:
                raise ValueError(f"{len(groups)} masks")
            return shrink(pixels, (_draw(shapes, size) for shapes in groups), longest_side)

    def _size(self, content: Any) -> tuple[int, int]:
        with reading(self.document, _EXPECTED):
            return checked_size(self.name, content["imageHeight"], content["imageWidth"])

    def _pixels(self, content: Any, size: tuple[int, int]) -> NDArray[np.uint8]:
        height, width = size
        with reading(self.document, _EXPECTED):
            if content.get("imageData"):
                data = base64.b64decode(content["imageData"], validate=True)
            else:
                path = self._image_path(str(content["imagePath"]).replace("\\", "/"))
                return read_pixels(path, height=height, width=width, listed_in=self.document)
        try:
            return decode_to_size(
                data, height=height, width=width, name=self.name, listed_in=self.document
            )
        except ImageError as error:
            raise ConfigError(
                f"Expected an image as imageData of {self.document}. Received: {error}. Save it "
                "again."
            ) from error

    def _image_path(self, name: str) -> Path:
        """Find the image below `images`, to which the JSON file may point or not."""
        folder = self.document.parent
        if self.images is None:
            return inside(folder, name)
        pointed = (folder / name).resolve()
        return pointed if _lies_in(pointed, self.images) else inside(self.images, name)


def read_labelme(path: str | Path, images: str | Path | None = None) -> list[LabelmeImage]:
    """List the images of a folder of LabelMe's JSON files; no file is opened.

    Args:
        path: Folder with a JSON file an image, in it or in folders below it.
        images: Folder that images must lie in, whether `imagePath` points there or is relative to
            it; None for that of each JSON file.

    Returns:
        The images, by the names of their JSON files.

    Raises:
        ConfigError: If there is no such folder, or no JSON file in it.
    """
    folder = require_folder(path, "LabelMe's JSON files")
    root = None if images is None else require_folder(images, "images")
    documents = list_files(folder, frozenset({".json"}))
    if not documents:
        raise ConfigError(f"Expected JSON files in {folder}. Received: none. Name another folder.")
    return [LabelmeImage(file, root, file.relative_to(folder).as_posix()) for file in documents]


def _lies_in(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder.resolve())


def _grouped(shapes: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Put shapes of one group together, where the first of them is."""
    groups: dict[Any, list[Mapping[str, Any]]] = {}
    for number, shape in enumerate(shapes):
        if shape.get("shape_type", "polygon") in _AREAS:
            group = shape.get("group_id")
            key = ("alone", number) if group is None else ("group", int(group))
            groups.setdefault(key, []).append(shape)
    return list(groups.values())


def _draw(shapes: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Draw the shapes of one mask as LabelMe does."""
    height, width = size
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    for shape in shapes:
        points = _points(shape["points"])
        kind = shape.get("shape_type", "polygon")
        if kind == "mask":
            left, top = map(round, points[0])
            canvas.paste(True, (left, top), _mask_picture(shape["mask"], points))
        elif kind == "rectangle":
            (x0, y0), (x1, y1) = points[:2]
            corners = (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))
            draw.rectangle(corners, outline=1, fill=1)
        elif kind == "circle":
            (x, y), (edge_x, edge_y) = points[:2]
            radius = math.hypot(edge_x - x, edge_y - y)
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
        elif len(points) > 2:
            draw.polygon(points, outline=1, fill=1)
    return np.array(canvas, bool)


def _points(values: Any) -> list[tuple[float, float]]:
    """Read corners; one far outside is drawn as if it were nearer."""
    points = np.array(values, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a corner that is no number")
    return [(x, y) for x, y in np.clip(points, -1e5, 1e5).tolist()]


def _mask_picture(text: Any, points: Sequence[tuple[float, float]]) -> Image.Image:
    """Read the picture of a mask, which has to fill its box."""
    (left, top), (right, bottom) = points[:2]
    expected = (round(right) - round(left) + 1, round(bottom) - round(top) + 1)
    data = base64.b64decode(text, validate=True)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.size != expected:
                raise ValueError(f"a mask of {picture.size} in a box of {expected}")
            return picture.convert("1", dither=Image.Dither.NONE)
    except (OSError, SyntaxError) as error:
        raise ValueError("a mask that is no PNG picture") from error
