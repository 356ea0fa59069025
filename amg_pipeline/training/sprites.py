"""Rasterises shapes: outlines in the unit frame become soft masks in a patch of the scene."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from amg_pipeline.training.shapes import Figure, Points, Relief, Shape

_MAX_FIGURES = 255


@dataclass(frozen=True, slots=True)
class SpriteLayer:
    """Soft coverage, float32 `(h, w)`, and part ids (0 none), uint8 `(h, w)`, of a `PartLayer`."""

    alpha: NDArray[np.float32]
    ids: NDArray[np.uint8]
    tone: float | None


@dataclass(frozen=True, slots=True)
class Sprite:
    """A rasterised shape: the patch of the scene that it covers."""

    top: int
    left: int
    alpha: NDArray[np.float32]  # (h, w) coverage in [0, 1]
    layers: tuple[SpriteLayer, ...]
    to_unit: NDArray[np.float64]  # (2, 3): scene XY -> unit frame
    relief: Relief

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the scene that the patch covers."""
        height, width = self.alpha.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


def rasterise(
    shape: Shape,
    matrix: NDArray[np.float64],
    centre: NDArray[np.float64],
    *,
    size: int,
    margin_px: int = 1,
) -> Sprite | None:
    """Draw a shape into the patch of a scene that it covers.

    Args:
        shape: What to draw, unit frame.
        matrix: `(2, 2)` map from the unit frame to scene pixels.
        centre: `(2,)` scene XY of the unit frame's origin, pixel corners at integers.
        size: Side of the square scene in pixels.
        margin_px: Empty pixels to keep around the shape.

    Returns:
        The sprite, clipped to the scene; None when nothing of it is inside.
    """
    stretch = float(np.sqrt(abs(np.linalg.det(matrix))))
    outline = np.concatenate([figure.points for figure in shape.body]) @ matrix.T + centre
    margin = margin_px + max(figure.width for figure in shape.body) * stretch
    low = np.clip(np.floor(outline.min(axis=0) - margin), 0, size).astype(int)
    high = np.clip(np.ceil(outline.max(axis=0) + margin), 0, size).astype(int)
    width, height = (high - low).tolist()
    if width < 2 or height < 2:
        return None
    # Large patches have room for fewer samples a pixel; their edges are as smooth to the eye.
    samples = 4 if max(width, height) <= 96 else 3 if max(width, height) <= 200 else 2
    draw_matrix, origin = matrix.T * samples, (centre - low) * samples

    def draw(figures: tuple[Figure, ...], fills: list[int], image: Image.Image) -> None:
        pen = ImageDraw.Draw(image)
        for figure, fill in zip(figures, fills, strict=True):
            points = figure.points @ draw_matrix + origin
            if figure.width:
                _draw_stroke(pen, points, figure.width * stretch * samples, fill)
            else:
                pen.polygon(points.ravel().tolist(), fill=fill)

    canvas = Image.new("L", (width * samples, height * samples))
    draw(shape.body, [255] * len(shape.body), canvas)
    draw(shape.holes, [0] * len(shape.holes), canvas)
    layers = []
    for layer in shape.layers:
        figures = layer.figures[:_MAX_FIGURES]
        ids = [1] * len(figures) if layer.joined else list(range(1, len(figures) + 1))
        image = Image.new("L", canvas.size)
        draw(figures, ids, image)
        drawn = np.asarray(image)
        cover = Image.fromarray(np.where(drawn > 0, np.uint8(255), np.uint8(0)))
        layers.append(
            SpriteLayer(
                alpha=_coverage(cover, samples),
                ids=drawn[samples // 2 :: samples, samples // 2 :: samples],
                tone=layer.tone,
            )
        )
    inverse = np.linalg.inv(matrix)
    to_unit = np.concatenate([inverse, -(inverse @ centre)[:, None]], axis=1)
    alpha = _coverage(canvas, samples)
    return Sprite(int(low[1]), int(low[0]), alpha, tuple(layers), to_unit, shape.relief)


def _draw_stroke(pen: ImageDraw.ImageDraw, points: Points, width: float, fill: int) -> None:
    """Draw a line with round ends."""
    pen.line(points.ravel().tolist(), fill=fill, width=max(1, round(width)), joint="curve")
    radius = width / 2
    if radius >= 1:
        for x, y in (points[0], points[-1]):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _coverage(image: Image.Image, samples: int) -> NDArray[np.float32]:
    return np.asarray(image.reduce(samples), np.float32) * np.float32(1 / 255)
