"""Renders synthetic scenes with exact masks, for training promptable segmenters.

A scene is a painted background with objects laid over it from back to front, photographed by a
simulated camera. Masks are modal (what is seen) and come in levels, so that one click has a
part, an object and a larger unit as answers. Shadows, highlights and textures belong to the
surface they fall on; they make no masks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.backgrounds import paint_background
from amg_pipeline.training.camera import photograph
from amg_pipeline.training.colours import luminance, near_colour, random_colour, random_palette
from amg_pipeline.training.noise import Floats, NoiseBank, blur, noise_bank, resize
from amg_pipeline.training.shapes import (
    Kind,
    Shape,
    Sprite,
    bent,
    is_upright,
    random_shape,
    rasterise,
)
from amg_pipeline.training.textures import paint_texture, random_family

# Raised whenever the same seed gives other bytes than before.
SCENES_VERSION = 2
LEVELS = ("parts", "objects", "units")
PARTS, OBJECTS, UNITS = range(3)
SMALLEST_SIZE = 32
_MAX_ID = 255
_MIN_AREA_PX_AT_256 = 12
_MIN_VISIBLE_SHARE = 0.08
# A part that is nearly its whole object would be a second copy of the object's mask.
_MAX_PART_SHARE = 0.92
_MIN_REMAINDER_SHARE = 0.1
_MIN_CONTRAST = 0.07


@dataclass(frozen=True, slots=True)
class Scene:
    """A photograph-like picture and its masks.

    Attributes:
        image: uint8 `(size, size, 3)` RGB.
        label_maps: uint8 `(3, size, size)`, finest level first: parts of objects, objects,
            larger units (background regions and groups of like objects). 0 is "no mask at this
            level"; the others are the level's masks, numbered from 1 without gaps.
    """

    image: NDArray[np.uint8]
    label_maps: NDArray[np.uint8]


def render_scene(seed: int, size: int = 256) -> Scene:
    """Render one scene.

    Args:
        seed: Not negative; the same seed and size give the same bytes.
        size: Side of the square scene in pixels, at least 32.

    Returns:
        The scene.

    Raises:
        ConfigError: If `seed` or `size` is out of range.
    """
    if seed < 0:
        raise ConfigError(f"A scene's seed must be 0 or more. Received: {seed}.")
    if size < SMALLEST_SIZE:
        raise ConfigError(
            f"A scene's size must be at least {SMALLEST_SIZE} pixels. Received: {size}."
        )
    rng = np.random.default_rng(seed)
    bank = noise_bank(size)
    painter = _Painter(bank, rng, size)
    _LAYOUTS[int(np.searchsorted(_LAYOUT_ENDS, rng.random(), side="right"))](painter)
    return Scene(photograph(bank, rng, painter.canvas), painter.finish())


@dataclass(frozen=True, slots=True)
class _Surface:
    """How an object is painted; objects of a group share one."""

    family: int
    palette: Floats
    light_share: float  # strength of relief shading
    gloss: float  # strength of the highlight
    outline: float  # times the colour at the rim; 1 draws none
    part_seed: int


class _Painter:
    """Holds the canvas and the label maps while a scene is being painted."""

    def __init__(self, bank: NoiseBank, rng: np.random.Generator, size: int) -> None:
        self.bank, self.rng, self.size = bank, rng, size
        self.canvas: Floats = np.zeros((3, size, size), np.float32)
        # Wide while painting; narrowed to uint8 when the small masks are gone.
        self.labels = np.zeros((3, size, size), np.int32)
        self.next_id = [1, 1, 1]
        self.full_area: dict[int, int] = {}  # object id -> pixels before anything covers it
        angle = rng.uniform(0.0, 2 * np.pi)
        self.light = np.array([np.cos(angle), -abs(np.sin(angle)) - 0.3])
        self.light /= np.linalg.norm(self.light)
        self.shadows = rng.random() < 0.65
        self.shadow_reach = float(rng.uniform(0.02, 0.25))
        self.scene_colours = [random_colour(rng) for _ in range(3)]

    # ---- ids ----

    def take_ids(self, level: int, count: int = 1) -> int:
        first = self.next_id[level]
        self.next_id[level] += count
        return first

    # ---- background ----

    def background(self, *, outdoor: bool = False) -> None:
        self.canvas, regions = paint_background(
            self.bank, self.rng, size=self.size, outdoor=outdoor
        )
        first = self.take_ids(UNITS, int(regions.max()))
        self.labels[UNITS] = regions.astype(np.int32) + (first - 1)
        if self.rng.random() < 0.22:  # out of focus behind the objects
            self.canvas = blur(self.canvas, float(self.rng.uniform(0.8, 4.0)) * self.size / 256)

    # ---- objects ----

    def surface(self, *, near: Floats | None = None) -> _Surface:
        """Draw a surface; `near` asks for a base colour of low contrast to it."""
        rng = self.rng
        choice = rng.random()
        if near is not None:
            base = near_colour(rng, near, contrast=float(rng.uniform(0.1, 0.25)))
        elif choice < 0.45:
            colour = self.scene_colours[int(rng.integers(3))]
            base = near_colour(rng, colour, contrast=float(rng.uniform(0.02, 0.2)))
        else:
            base = random_colour(rng)
        return _Surface(
            family=random_family(rng),
            palette=random_palette(rng, base),
            light_share=float(rng.choice([0.0, 0.15, 0.35, 0.6])),
            gloss=float(rng.choice([0.0, 0.0, 0.3, 0.7])),
            outline=float(rng.choice([0.35, 1.7])) if rng.random() < 0.1 else 1.0,
            part_seed=int(rng.integers(2**31)),
        )

    def place(
        self,
        shape: Shape,
        surface: _Surface | None,
        *,
        centre: NDArray[np.float64],
        half_px: float,
        aspect: float = 1.0,
        angle: float = 0.0,
        mirrored: bool = False,
        unit_id: int = 0,
    ) -> None:
        """Paint one object over what is there and label it.

        Args:
            shape: The outline and parts.
            surface: How it is painted; None draws one to suit the place.
            centre: Scene XY of the unit frame's origin.
            half_px: Half of the mean side in pixels.
            aspect: Width over height of the unit frame.
            angle: Rotation in radians.
            mirrored: Whether left and right are exchanged.
            unit_id: Id of the object's group in the last level, 0 for none.
        """
        stretch = np.diag([np.sqrt(aspect) * (-1 if mirrored else 1), 1 / np.sqrt(aspect)])
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        fuzz_px = self._draw_fuzz(shape, half_px)
        sprite = rasterise(
            shape,
            turn @ stretch * half_px,
            centre,
            size=self.size,
            margin_px=1 + round(2 * fuzz_px),
        )
        if sprite is None or not (sprite.alpha > 0.5).any():
            return
        if fuzz_px:
            sprite = self._fuzzy(sprite, fuzz_px)
        if surface is None:
            near = self._colour_below(sprite) if self.rng.random() < 0.3 else None
            surface = self.surface(near=near)
        if self.shadows:
            self._cast_shadow(sprite, half_px)
        self._paint(sprite, surface)
        self._label(sprite, unit_id)

    def _draw_fuzz(self, shape: Shape, half_px: float) -> float:
        """Draw how far fur, leaves or wear roughen an outline, in pixels; 0 for most."""
        if shape.relief != "dome" or half_px < 12 or self.rng.random() > 0.35:
            return 0.0
        return float(self.rng.uniform(0.8, 3.0)) * self.size / 256

    def _fuzzy(self, sprite: Sprite, fuzz_px: float) -> Sprite:
        """Roughen the outlines of an object and its parts by shifting them with fine noise."""
        height, width = sprite.alpha.shape
        noise = self.bank.fractal(
            self.rng, height, width, coarsest_px=fuzz_px * self.rng.uniform(1.5, 6.0)
        )
        # Within +-0.4, so that no speck appears far from the outline.
        shift = np.clip(np.float32(self.rng.uniform(0.12, 0.3)) * noise, -0.4, 0.4)
        steep = np.float32(max(1.0, 2.0 * fuzz_px))
        widened = ImageFilter.MaxFilter(2 * int(np.ceil(fuzz_px)) + 1)

        def roughen(alpha: Floats) -> Floats:
            return np.clip(
                (blur(alpha, fuzz_px) + shift - np.float32(0.5)) * steep + np.float32(0.5), 0.0, 1.0
            )

        layers = tuple(
            replace(
                layer,
                alpha=roughen(layer.alpha),
                ids=np.asarray(Image.fromarray(layer.ids).filter(widened)),
            )
            for layer in sprite.layers
        )
        return replace(sprite, alpha=roughen(sprite.alpha), layers=layers)

    def _window(self, sprite: Sprite) -> tuple[slice, slice, slice]:
        height, width = sprite.alpha.shape
        return (
            slice(None),
            slice(sprite.top, sprite.top + height),
            slice(sprite.left, sprite.left + width),
        )

    def _colour_below(self, sprite: Sprite) -> Floats:
        patch = self.canvas[self._window(sprite)]
        return np.clip(patch.mean(axis=(1, 2)), 0.05, 0.95).astype(np.float32)

    def _cast_shadow(self, sprite: Sprite, half_px: float) -> None:
        """Darken what lies behind, on the side away from the light."""
        reach = self.shadow_reach * 2 * half_px
        soft = max(0.8, reach * 0.4)
        pad = int(3 * soft) + 1
        down, right = (-self.light[::-1] * reach).round().astype(int)
        height, width = sprite.alpha.shape
        frame = np.zeros((height + 2 * pad, width + 2 * pad), np.uint8)
        frame[pad:-pad, pad:-pad] = (sprite.alpha * 255).astype(np.uint8)
        shade = _soft_mask(frame, soft)
        top, left = sprite.top - pad + int(down), sprite.left - pad + int(right)
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + shade.shape[0], self.size), min(left + shade.shape[1], self.size)
        if y0 >= y1 or x0 >= x1:
            return
        seen = shade[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32)
        strength = np.float32(self.rng.uniform(0.2, 0.6) / 255)
        self.canvas[:, y0:y1, x0:x1] *= 1.0 - strength * seen

    def _paint(self, sprite: Sprite, surface: _Surface) -> None:
        height, width = sprite.alpha.shape
        window = self._window(sprite)
        below = self.canvas[window]
        body = paint_texture(
            self.bank, self.rng, height, width, family=surface.family, palette=surface.palette
        )
        body = self._apart(body, below, sprite.alpha)
        part_rng = np.random.default_rng(surface.part_seed)
        for layer in sprite.layers:
            if layer.tone is not None:
                paint = body * np.float32(layer.tone)
            else:
                base = (
                    near_colour(part_rng, surface.palette[0], contrast=0.3)
                    if part_rng.random() < 0.5
                    else random_colour(part_rng)
                )
                palette, family = random_palette(part_rng, base), random_family(part_rng)
                paint = paint_texture(
                    self.bank, self.rng, height, width, family=family, palette=palette
                )
                paint = self._apart(paint, body, layer.alpha * sprite.alpha)
            body = body + layer.alpha * (paint - body)
        body = body * _relief(self.rng, sprite, surface, self.light)
        if surface.outline != 1.0:
            body = _outlined(body, sprite.alpha, surface.outline)
        alpha = sprite.alpha
        if self.rng.random() < 0.12 and min(height, width) > 24:  # out of focus
            soft = float(self.rng.uniform(0.6, 1.8)) * self.size / 256
            alpha, body = blur(alpha, soft), blur(body, soft)
        self.canvas[window] = below + alpha * (body - below)

    def _apart(self, paint: Floats, below: Floats, alpha: Floats) -> Floats:
        """Shift a surface's brightness when it can't be told from what it lies on."""
        weight = float(alpha.sum())
        if weight < 1.0:
            return paint
        step = np.einsum("hw,chw->c", alpha, paint - below) / weight
        if float(np.linalg.norm(step)) >= _MIN_CONTRAST:
            return paint
        level = float(luminance(np.einsum("hw,chw->c", alpha, below) / weight))
        shift = self.rng.uniform(0.08, 0.16) * (1 if level < 0.5 else -1)
        return paint + np.float32(shift)

    def _label(self, sprite: Sprite, unit_id: int) -> None:
        _, rows, columns = self._window(sprite)
        inside = sprite.alpha > 0.5
        area = int(inside.sum())
        object_id = self.take_ids(OBJECTS)
        self.full_area[object_id] = area
        self.labels[OBJECTS, rows, columns][inside] = object_id
        self.labels[UNITS, rows, columns][inside] = unit_id
        parts = np.zeros(sprite.alpha.shape, np.int32)
        for layer in sprite.layers:
            seen = inside & (layer.alpha > 0.5) & (layer.ids > 0)
            first = self.take_ids(PARTS, int(layer.ids.max(initial=0)))
            parts[seen] = layer.ids[seen].astype(np.int32) + (first - 1)
        rest = inside & (parts == 0)
        if sprite.layers and rest.sum() > _MIN_REMAINDER_SHARE * area:
            parts[rest] = self.take_ids(PARTS)
        self.labels[PARTS, rows, columns][inside] = parts[inside]

    # ---- finishing ----

    def finish(self) -> NDArray[np.uint8]:
        """Drop masks too small to see, number the others without gaps."""
        smallest = max(4, round(_MIN_AREA_PX_AT_256 * (self.size / 256) ** 2))
        objects, parts = self.labels[OBJECTS], self.labels[PARTS]
        areas = np.bincount(objects.ravel(), minlength=self.next_id[OBJECTS])
        keep_object = areas >= smallest
        for object_id, area in self.full_area.items():
            keep_object[object_id] &= areas[object_id] >= _MIN_VISIBLE_SHARE * area
        part_areas = np.bincount(parts.ravel(), minlength=self.next_id[PARTS])
        owner_area = np.zeros(len(part_areas), np.int64)
        owner_area[parts] = areas[objects]
        keep_part = (part_areas >= smallest) & (part_areas <= _MAX_PART_SHARE * owner_area)
        unit_areas = np.bincount(self.labels[UNITS].ravel(), minlength=self.next_id[UNITS])
        keep_unit = unit_areas >= 4 * smallest
        return np.stack(
            [
                _renumber(labels, keep, counts)
                for labels, keep, counts in (
                    (parts, keep_part, part_areas),
                    (objects, keep_object, areas),
                    (self.labels[UNITS], keep_unit, unit_areas),
                )
            ]
        )


def _renumber(
    labels: NDArray[np.int32], keep: NDArray[np.bool_], areas: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Map kept ids to 1, 2, ... and the others, and all beyond the 255 largest, to 0."""
    keep[0] = False
    ids = np.flatnonzero(keep)
    if len(ids) > _MAX_ID:
        largest = np.argsort(areas[ids], kind="stable")[-_MAX_ID:]
        ids = np.sort(ids[largest])
    table = np.zeros(len(keep), np.uint8)
    table[ids] = np.arange(1, len(ids) + 1)
    return np.asarray(table[labels], np.uint8)


# ---- light on objects ------------------------------------------------------------------------


def _relief(
    rng: np.random.Generator, sprite: Sprite, surface: _Surface, light: NDArray[np.float64]
) -> Floats:
    """Return the light on an object, `(h, w)` around 1, as if it had a third dimension."""
    height, width = sprite.alpha.shape
    shade = np.ones((height, width), np.float32)
    share = np.float32(surface.light_share)
    if not share:
        return shade
    x = np.arange(width, dtype=np.float32)[None, :] + np.float32(sprite.left + 0.5)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(sprite.top + 0.5)
    u, v = (
        np.float32(row[0]) * x + np.float32(row[1]) * y + np.float32(row[2])
        for row in sprite.to_unit
    )
    if sprite.relief == "cylinder":
        shade += share * (np.float32(np.sign(light[0])) * u * np.float32(0.8) - u * u)
    elif sprite.relief == "flat" or min(height, width) < 10:
        shade += share * np.float32(0.5) * (np.float32(light[0]) * u + np.float32(light[1]) * v)
    else:
        slope_x, slope_y = _dome_slopes(sprite.alpha)
        shade += share * np.clip(
            np.float32(light[0]) * slope_x + np.float32(light[1]) * slope_y, -1.0, 1.0
        )
    if surface.gloss and sprite.relief != "flat":
        cx, cy = light * rng.uniform(0.25, 0.5)
        spot = rng.uniform(0.1, 0.3)
        shade += np.float32(surface.gloss) * np.exp(
            -((u - np.float32(cx)) ** 2 + (v - np.float32(cy)) ** 2) / np.float32(spot * spot)
        )
    return np.maximum(shade, np.float32(0.15))


def _dome_slopes(alpha: Floats) -> tuple[Floats, Floats]:
    """Return the outward slopes, about [-1, 1], of a dome raised over a mask."""
    height, width = alpha.shape
    ratio = 24 / max(height, width)
    rows, columns = max(4, round(height * ratio)), max(4, round(width * ratio))
    dome = np.pad(resize(alpha, rows, columns), 2)
    dome = _smoother(rows + 4) @ dome @ _smoother(columns + 4)
    fall_y, fall_x = np.gradient(-dome)
    steepest = max(float(np.hypot(fall_x, fall_y).max()), 1e-6)
    return (
        resize((fall_x / steepest)[2:-2, 2:-2], height, width),
        resize((fall_y / steepest)[2:-2, 2:-2], height, width),
    )


@lru_cache(maxsize=64)
def _smoother(num: int) -> Floats:
    """Return the `(num, num)` matrix that blurs one axis by a binomial of 13 taps."""
    once = 0.5 * np.eye(num) + 0.25 * (np.eye(num, k=1) + np.eye(num, k=-1))
    return np.linalg.matrix_power(once, 6).astype(np.float32)


def _soft_mask(frame: NDArray[np.uint8], radius_px: float) -> NDArray[np.uint8]:
    """Blur an 8-bit mask; a wide blur works on a smaller copy."""
    image, shrink = Image.fromarray(frame), max(1, int(radius_px / 2))
    small = image.reduce(shrink).filter(ImageFilter.GaussianBlur(radius_px / shrink))
    if shrink > 1:
        small = small.resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(small)


def _outlined(body: Floats, alpha: Floats, tone: float) -> Floats:
    """Darken or lighten the rim of an object, as drawings and some edges do."""
    image = Image.fromarray((alpha * 255).astype(np.uint8))
    core = np.asarray(image.filter(ImageFilter.MinFilter(3)), np.float32) / 255
    rim = np.clip(alpha - core, 0.0, 1.0)
    return np.asarray(body * (1.0 + (tone - 1.0) * rim), np.float32)


# ---- layouts ---------------------------------------------------------------------------------


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _draw_shape(rng: np.random.Generator, kind: Kind) -> Shape:
    shape = random_shape(rng, kind)
    if rng.random() < 0.35:
        return shape
    return bent(rng, shape, amount=float(rng.uniform(0.02, 0.18)))


def _scatter(painter: _Painter, *, count: int, low: float, high: float, kind: Kind = "any") -> None:
    """Lay objects anywhere, sides from `low` to `high` of the scene's, the larger ones first."""
    rng, size = painter.rng, painter.size
    sides = np.array([_log_uniform(rng, low, high) for _ in range(count)])
    # Mostly large behind small, so that small things are seen, but not always.
    order = np.argsort(-sides * np.exp(rng.normal(0.0, 0.5, count)))
    for side in sides[order]:
        shape = _draw_shape(rng, kind)
        tilt = 0.15 if is_upright(shape) and rng.random() < 0.8 else np.pi
        painter.place(
            shape,
            None,
            centre=rng.uniform(-0.02, 1.02, 2) * size,
            half_px=float(side) * size / 2,
            aspect=_log_uniform(rng, 0.6, 1.7),
            angle=float(rng.normal(0.0, 1.0) * tilt),
            mirrored=bool(rng.random() < 0.5),
        )


def _repeat(painter: _Painter, *, kind: Kind = "any") -> None:
    """Lay a row, a grid or a heap of like objects; together they are one larger unit."""
    rng, size = painter.rng, painter.size
    shape, surface = _draw_shape(rng, kind), painter.surface()
    unit_id = painter.take_ids(UNITS)
    half = _log_uniform(rng, 0.025, 0.13) * size
    pitch = half * 2 * rng.uniform(0.8, 1.25)
    columns, rows = int(rng.integers(2, 9)), int(rng.integers(1, 5))
    jitter = float(rng.choice([0.0, 0.05, 0.5]))
    aspect, turned = _log_uniform(rng, 0.7, 1.4), bool(rng.random() < 0.3)
    base = float(rng.normal(0.0, 0.3))
    turn = np.array([[np.cos(base), -np.sin(base)], [np.sin(base), np.cos(base)]])
    origin = rng.uniform(0.2, 0.8, 2) * size
    for row in range(rows):
        for column in range(columns):
            grid = np.array([column - (columns - 1) / 2, row - (rows - 1) / 2])
            at = turn @ ((grid + rng.normal(0.0, jitter, 2)) * pitch) + origin
            painter.place(
                shape,
                surface,
                centre=at,
                half_px=half * float(rng.uniform(0.9, 1.1)),
                aspect=aspect,
                angle=float(rng.uniform(0, 2 * np.pi)) if turned else base,
                unit_id=unit_id,
            )


def _mixed(painter: _Painter) -> None:
    painter.background()
    _scatter(painter, count=int(painter.rng.integers(4, 15)), low=0.08, high=0.8)


def _dominant(painter: _Painter) -> None:
    painter.background()
    rng, size = painter.rng, painter.size
    _scatter(painter, count=int(rng.integers(0, 4)), low=0.1, high=0.6)
    shape = _draw_shape(rng, "any")
    painter.place(
        shape,
        None,
        centre=rng.uniform(0.35, 0.65, 2) * size,
        half_px=float(rng.uniform(0.5, 0.95)) * size / 2,
        aspect=_log_uniform(rng, 0.7, 1.4),
        angle=float(rng.normal(0.0, 0.15 if is_upright(shape) else 1.5)),
        mirrored=bool(rng.random() < 0.5),
    )
    _scatter(painter, count=int(rng.integers(0, 4)), low=0.06, high=0.35)


def _crowded(painter: _Painter) -> None:
    """Cover nearly the whole ground, so that things border on things."""
    painter.background()
    _scatter(painter, count=int(painter.rng.integers(12, 24)), low=0.15, high=0.65)


def _many_small(painter: _Painter) -> None:
    painter.background()
    _scatter(painter, count=int(painter.rng.integers(10, 19)), low=0.05, high=0.3)


def _repeated(painter: _Painter) -> None:
    painter.background()
    _scatter(painter, count=int(painter.rng.integers(0, 4)), low=0.1, high=0.6)
    for _ in range(int(painter.rng.integers(1, 3))):
        _repeat(painter)
    _scatter(painter, count=int(painter.rng.integers(0, 4)), low=0.05, high=0.3)


def _outdoor(painter: _Painter) -> None:
    """Things that stand on the ground, the nearer the lower, the larger and the later."""
    painter.background(outdoor=True)
    rng, size = painter.rng, painter.size
    horizon, near = rng.uniform(0.3, 0.55), rng.uniform(0.4, 0.9)
    for foot in np.sort(horizon + (1.05 - horizon) * rng.uniform(0.03, 1.0, rng.integers(5, 18))):
        shape = _draw_shape(rng, "outdoor")
        half = near * (foot - horizon + 0.05) / (1.05 - horizon) * _log_uniform(rng, 0.5, 1.6)
        half_px = float(half * size / 2)
        painter.place(
            shape,
            None,
            centre=np.array([rng.uniform(0.0, 1.0) * size, foot * size - half_px]),
            half_px=half_px,
            aspect=_log_uniform(rng, 0.7, 1.3),
            angle=float(rng.normal(0.0, 0.03)),
            mirrored=bool(rng.random() < 0.5),
        )


_WEIGHTED_LAYOUTS = (
    (0.24, _mixed),
    (0.18, _dominant),
    (0.18, _crowded),
    (0.10, _many_small),
    (0.12, _repeated),
    (0.18, _outdoor),
)
_LAYOUTS = tuple(layout for _, layout in _WEIGHTED_LAYOUTS)
_LAYOUT_ENDS = np.cumsum([weight for weight, _ in _WEIGHTED_LAYOUTS])
