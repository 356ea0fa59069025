"""Lays out the ground of a scene: skies, floors, walls, hills and other large regions.

A layout is a stack of soft coverages: each region lies over the ones before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from PIL import Image

from amg_pipeline.training.camera import to_uint8
from amg_pipeline.training.colours import near_colour, random_colour, random_palette
from amg_pipeline.training.noise import Floats, NoiseBank
from amg_pipeline.training.relief import linear_falloff
from amg_pipeline.training.textures import paint_texture, planar, random_family

_Layout: TypeAlias = Callable[[NoiseBank, np.random.Generator, int], list[Floats]]


def _axes(size: int) -> tuple[Floats, Floats]:
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    return centres[None, :], centres[:, None]


def _cover(rng: np.random.Generator, inside: Floats, size: int) -> Floats:
    """Turn a signed distance (in frame sides, positive inside) into coverage."""
    soft_px = float(rng.choice([1.0, 1.0, 1.5, 3.0]))
    cover = np.clip(inside * np.float32(size / soft_px) + np.float32(0.5), 0.0, 1.0)
    return np.asarray(cover, np.float32)


def _ridge_line(bank: NoiseBank, rng: np.random.Generator, size: int) -> Floats:
    """Return heights `(1, size)` of a skyline, about zero mean: flat, rolling or jagged."""
    row = int(rng.integers(bank.octaves[0].shape[0]))
    start = int(rng.integers(bank.octaves[0].shape[1] - size))
    line = np.zeros((1, size), np.float32)
    amplitude = float(rng.choice([0.0, 0.02, 0.06, 0.12]))
    persistence = rng.uniform(0.3, 0.65)
    for field in bank.octaves[:8]:
        line += np.float32(amplitude) * field[row : row + 1, start : start + size]
        amplitude *= persistence
    return line


def _horizons(bank: NoiseBank, rng: np.random.Generator, size: int) -> list[Floats]:
    """Stack one to four skylines down the picture: sky, hills, trees, ground."""
    x, y = _axes(size)
    tilt = np.float32(rng.normal(0.0, 0.04))
    covers = []
    for height in np.sort(rng.uniform(0.2, 0.9, int(rng.integers(1, 5)))):
        line = _ridge_line(bank, rng, size) + np.float32(height) + tilt * (x - 0.5)
        covers.append(_cover(rng, y - line, size))
    return covers


def _room(bank: NoiseBank, rng: np.random.Generator, size: int) -> list[Floats]:
    """Two walls that meet at a corner, and a floor or table top."""
    x, y = _axes(size)
    covers = []
    if rng.random() < 0.5:
        corner = np.float32(rng.uniform(0.15, 0.85))
        covers.append(_cover(rng, np.broadcast_to(x - corner, (size, size)), size))
    level, fall = np.float32(rng.uniform(0.45, 0.9)), np.float32(rng.normal(0.0, 0.15))
    covers.append(_cover(rng, y - level - fall * (x - 0.5), size))
    if rng.random() < 0.25:  # skirting, kerb or table edge
        covers.append(
            _cover(rng, y - level - fall * (x - 0.5) - np.float32(rng.uniform(0.05, 0.3)), size)
        )
    return covers


def _warped_planes(bank: NoiseBank, rng: np.random.Generator, size: int) -> list[Floats]:
    """Half-planes with bent borders: shores, paths, cloths, clearings."""
    x, y = _axes(size)
    covers = []
    for _ in range(int(rng.integers(1, 4))):
        angle = rng.uniform(0.0, 2 * np.pi)
        side = np.float32(np.cos(angle)) * (x - 0.5) + np.float32(np.sin(angle)) * (y - 0.5)
        bend = np.float32(rng.uniform(0.0, 0.12)) * bank.fractal(
            rng, size, size, coarsest_px=size / 2, finest_px=size / 32, persistence=0.4
        )
        covers.append(_cover(rng, side + bend - np.float32(rng.uniform(0.0, 0.35)), size))
    return covers


def _cells(bank: NoiseBank, rng: np.random.Generator, size: int) -> list[Floats]:
    """Voronoi-like regions with bent borders: fields, rocks, rooms from above."""
    x, y = _axes(size)
    sites = rng.uniform(0.0, 1.0, (int(rng.integers(3, 6)), 2)).astype(np.float32)
    bend = np.float32(rng.uniform(0.0, 0.06))
    far = np.stack([np.hypot(x - sx, y - sy) for sx, sy in sites])
    for field in far:
        field += bend * bank.crop(rng, size, size, octave=int(rng.integers(1, 4)))
    nearest = np.partition(far, 1, axis=0)[:2]
    covers = []
    for field in far[1:]:
        rival = np.where(field <= nearest[0], nearest[1], nearest[0])
        covers.append(_cover(rng, rival - field, size))
    return covers


def _plain(bank: NoiseBank, rng: np.random.Generator, size: int) -> list[Floats]:
    return []


def _road(bank: NoiseBank, rng: np.random.Generator, size: int) -> list[Floats]:
    """A horizon and a path that narrows towards it."""
    x, y = _axes(size)
    horizon = np.float32(rng.uniform(0.25, 0.6))
    ground = _cover(rng, y - horizon - _ridge_line(bank, rng, size) * np.float32(0.5), size)
    vanishing, foot = rng.uniform(0.2, 0.8, 2).astype(np.float32)
    depth = (y - horizon) / (np.float32(1.0) - horizon)
    middle = vanishing + (foot - vanishing) * depth
    half = np.float32(rng.uniform(0.15, 0.5)) * depth + np.float32(0.005)
    path = _cover(rng, half - np.abs(x - middle), size) * ground
    return [ground, path.astype(np.float32)]


_LAYOUTS: tuple[_Layout, ...] = (
    _plain, _plain, _room, _room, _room, _warped_planes, _warped_planes, _cells, _horizons,
    _horizons, _horizons, _road,
)  # fmt: skip
_OUTDOOR_LAYOUTS: tuple[_Layout, ...] = (_horizons, _horizons, _road)


def paint_background(
    bank: NoiseBank, rng: np.random.Generator, *, size: int, outdoor: bool = False
) -> tuple[Floats, np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Paint one to five large regions.

    Args:
        bank: Noise of the scene's size.
        rng: Source of all randomness.
        size: Side of the square scene in pixels.
        outdoor: Whether only layouts with a ground and a sky are drawn.

    Returns:
        The painting, planar float32 `(3, size, size)`, and the region of each pixel, uint8
        `(size, size)`, 1 upwards.
    """
    layouts = _OUTDOOR_LAYOUTS if outdoor else _LAYOUTS
    covers = layouts[int(rng.integers(len(layouts)))](bank, rng, size)
    canvas = np.zeros((3, size, size), np.float32)
    labels = np.ones((size, size), np.uint8)
    colour, family = random_colour(rng), random_family(rng)
    for region, cover in enumerate([None, *covers], start=1):
        if cover is not None and rng.random() < 0.6:
            colour = near_colour(rng, colour, contrast=float(rng.uniform(0.06, 0.25)))
        elif cover is not None:
            colour = random_colour(rng)
        if rng.random() < 0.7:
            family = random_family(rng)
        palette = random_palette(rng, colour)
        rows, columns = _extent(cover, size)
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if not height:
            continue
        layer = paint_texture(bank, rng, height, width, family=family, palette=palette)
        if cover is not None and height > size // 4 and rng.random() < 0.4:
            layer = _receding(layer, float(rng.uniform(1.5, 5.0)))
        layer *= linear_falloff(rng, height, width, strength=0.25)
        if cover is None:
            canvas = layer
            continue
        seen = cover[rows, columns]
        canvas[:, rows, columns] += seen * (layer - canvas[:, rows, columns])
        labels[rows, columns][seen > 0.5] = region
    return canvas, labels


def _extent(cover: Floats | None, size: int) -> tuple[slice, slice]:
    """Return the rows and columns that a region touches."""
    if cover is None:
        return slice(0, size), slice(0, size)
    rows = np.flatnonzero(cover.max(axis=1) > 0)
    columns = np.flatnonzero(cover.max(axis=0) > 0)
    if not len(rows):
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _receding(layer: Floats, depth: float) -> Floats:
    """Foreshorten a texture towards the top, like ground that runs to the horizon.

    The top row shows the texture's whole width, the bottom row its middle `1 / depth`.
    """
    height, width = layer.shape[1:]
    # x' = (x - w/2) / (1 + g y) + w/2 and y' = depth y / (1 + g y), as Pillow's 8 coefficients.
    growth = (depth - 1) / height
    image = Image.fromarray(to_uint8(layer)).transform(
        (width, height),
        Image.Transform.PERSPECTIVE,
        (1.0, width / 2 * growth, 0.0, 0.0, depth, 0.0, 0.0, growth),
        Image.Resampling.BILINEAR,
    )
    return planar(image)
