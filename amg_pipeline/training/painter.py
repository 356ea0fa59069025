"""Paints objects into a scene: surface, light, shadow and focus; the label maps keep pace."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from amg_pipeline.training.backgrounds import paint_background
from amg_pipeline.training.colours import luminance, near_colour, random_colour, random_palette
from amg_pipeline.training.label_maps import LabelMaps
from amg_pipeline.training.noise import Floats, NoiseBank, blur
from amg_pipeline.training.relief import linear_falloff, outlined, relief_shade
from amg_pipeline.training.shapes import Shape
from amg_pipeline.training.sprites import Sprite, rasterise
from amg_pipeline.training.textures import paint_texture, random_family

# In RGB distance; photographs show few weaker borders between things.
_MIN_CONTRAST = 0.05


@dataclass(frozen=True, slots=True)
class Surface:
    """How an object is painted; objects of a group share one."""

    family: int
    palette: Floats
    light_share: float  # strength of relief shading
    gloss: float  # strength of the highlight
    outline: float  # times the colour at the rim; 1 draws none
    part_seed: int


class ScenePainter:
    """Holds the canvas, the label maps and the light while a scene is being painted.

    Attributes:
        canvas: Planar RGB, float32 `(3, size, size)`, about [0, 1].
        label_maps: The masks so far.
        rng: Source of all randomness of the scene.
        size: Side of the scene in pixels.
    """

    def __init__(self, bank: NoiseBank, rng: np.random.Generator, size: int) -> None:
        self.bank, self.rng, self.size = bank, rng, size
        self.canvas: Floats = np.zeros((3, size, size), np.float32)
        self.label_maps = LabelMaps(size)
        angle = rng.uniform(0.0, 2 * np.pi)
        self.light = np.array([np.cos(angle), -abs(np.sin(angle)) - 0.3])
        self.light /= np.linalg.norm(self.light)
        self.shadows = rng.random() < 0.65
        self.shadow_reach = float(rng.uniform(0.02, 0.25))
        self.scene_colours = [random_colour(rng) for _ in range(3)]

    def background(self, *, outdoor: bool = False) -> None:
        """Paint and label the regions behind all objects, sometimes out of focus."""
        self.canvas, regions = paint_background(
            self.bank, self.rng, size=self.size, outdoor=outdoor
        )
        self.label_maps.lay_regions(regions)
        if self.rng.random() < 0.22:
            self.canvas = blur(self.canvas, float(self.rng.uniform(0.8, 4.0)) * self.size / 256)

    def surface(self, *, near: Floats | None = None) -> Surface:
        """Draw a surface; `near` asks for a base colour of low contrast to it."""
        rng = self.rng
        choice = rng.random()
        if near is not None:
            base = near_colour(rng, near, contrast=float(rng.uniform(0.05, 0.2)))
        elif choice < 0.45:
            colour = self.scene_colours[int(rng.integers(3))]
            base = near_colour(rng, colour, contrast=float(rng.uniform(0.02, 0.2)))
        else:
            base = random_colour(rng)
        return Surface(
            family=random_family(rng),
            palette=random_palette(rng, base),
            light_share=float(rng.choice([0.1, 0.3, 0.5, 0.8])),
            gloss=float(rng.choice([0.0, 0.0, 0.3, 0.7])),
            outline=float(rng.choice([0.35, 1.7])) if rng.random() < 0.1 else 1.0,
            part_seed=int(rng.integers(2**31)),
        )

    def place(
        self,
        shape: Shape,
        surface: Surface | None,
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
            near = self._colour_below(sprite) if self.rng.random() < 0.6 else None
            surface = self.surface(near=near)
        if self.shadows:
            self._cast_shadow(sprite, half_px)
        self._paint(sprite, surface)
        self.label_maps.lay_object(sprite, unit_id=unit_id)

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
            moved = (blur(alpha, fuzz_px) + shift - np.float32(0.5)) * steep + np.float32(0.5)
            return np.asarray(np.clip(moved, 0.0, 1.0), np.float32)

        layers = tuple(
            replace(
                layer,
                alpha=roughen(layer.alpha),
                ids=np.asarray(Image.fromarray(layer.ids).filter(widened)),
            )
            for layer in sprite.layers
        )
        return replace(sprite, alpha=roughen(sprite.alpha), layers=layers)

    def _colour_below(self, sprite: Sprite) -> Floats:
        patch = self.canvas[(slice(None), *sprite.window)]
        return np.asarray(np.clip(patch.mean(axis=(1, 2)), 0.05, 0.95), np.float32)

    def _cast_shadow(self, sprite: Sprite, half_px: float) -> None:
        """Darken what lies behind, on the side away from the light."""
        reach = self.shadow_reach * 2 * half_px
        soft = max(0.8, reach * 0.4)
        pad = int(3 * soft) + 1  # more than the reach: the frame always meets the scene
        down, right = (-self.light[::-1] * reach).round().astype(int)
        height, width = sprite.alpha.shape
        frame = np.zeros((height + 2 * pad, width + 2 * pad), np.uint8)
        frame[pad:-pad, pad:-pad] = (sprite.alpha * 255).astype(np.uint8)
        shade = _soft_mask(frame, soft)
        top, left = sprite.top - pad + int(down), sprite.left - pad + int(right)
        y0, x0 = max(top, 0), max(left, 0)
        y1, x1 = min(top + shade.shape[0], self.size), min(left + shade.shape[1], self.size)
        seen = shade[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32)
        strength = np.float32(self.rng.uniform(0.2, 0.6) / 255)
        self.canvas[:, y0:y1, x0:x1] *= 1.0 - strength * seen

    def _paint(self, sprite: Sprite, surface: Surface) -> None:
        height, width = sprite.alpha.shape
        window = (slice(None), *sprite.window)
        below = self.canvas[window]
        body = paint_texture(
            self.bank, self.rng, height, width, family=surface.family, palette=surface.palette
        )
        body *= linear_falloff(self.rng, height, width, strength=0.35)
        body = self._apart(body, below, sprite.alpha)
        part_rng = np.random.default_rng(surface.part_seed)
        for layer in sprite.layers:
            if layer.tone is not None:
                paint = body * np.float32(layer.tone)
            else:
                base = (
                    near_colour(
                        part_rng,
                        surface.palette[0],
                        contrast=float(part_rng.uniform(0.08, 0.35)),
                    )
                    if part_rng.random() < 0.7
                    else random_colour(part_rng)
                )
                palette, family = random_palette(part_rng, base), random_family(part_rng)
                paint = paint_texture(
                    self.bank, self.rng, height, width, family=family, palette=palette
                )
                paint = self._apart(paint, body, layer.alpha * sprite.alpha)
            body = body + layer.alpha * (paint - body)
        body = body * relief_shade(
            self.rng,
            sprite,
            light=self.light,
            light_share=surface.light_share,
            gloss=surface.gloss,
        )
        if surface.outline != 1.0:
            body = outlined(body, sprite.alpha, surface.outline)
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
        shift = self.rng.uniform(0.06, 0.14) * (1 if level < 0.5 else -1)
        return paint + np.float32(shift)


def _soft_mask(frame: NDArray[np.uint8], radius_px: float) -> NDArray[np.uint8]:
    """Blur an 8-bit mask; a wide blur works on a smaller copy."""
    image, shrink = Image.fromarray(frame), max(1, int(radius_px / 2))
    small = image.reduce(shrink).filter(ImageFilter.GaussianBlur(radius_px / shrink))
    if shrink > 1:
        small = small.resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(small)
