"""Makes training scenes of photographs with cut-out pictures laid on them.

A drawing of many colours with an exact outline teaches what classical segmentation of photographs
cannot: that a thing is more than a region of one colour. The photograph behind it, its light and
the camera are as in other scenes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.camera import photograph
from amg_pipeline.training.cutouts import read_cutout
from amg_pipeline.training.label_maps import PARTS, UNITS
from amg_pipeline.training.layouts import log_uniform
from amg_pipeline.training.noise import Floats, blur, noise_bank
from amg_pipeline.training.painter import ScenePainter
from amg_pipeline.training.photo_scenes import fingerprint, random_crop, segmented
from amg_pipeline.training.relief import linear_falloff
from amg_pipeline.training.scene_cache import SceneCache, SceneCacheMeta, fill_cache
from amg_pipeline.training.scenes import Scene
from amg_pipeline.training.sources.coco import CocoImage
from amg_pipeline.training.sprites import Sprite, SpriteLayer

#: Raised whenever the same pictures and seed give other scenes than before.
COLLAGES_VERSION = 1
_READ_SIDE = 640
_MOST_CUTOUTS = 7
#: Longer side of a cut-out, as a share of the scene's.
_SIDES = (0.12, 0.95)
_ASPECTS = (0.75, 1.33)
#: A photograph's mask below this share of the scene is no object of it.
_MIN_MASK_SHARE = 0.003
_BLURRED_SHARE = 0.25
#: Standard deviation of the turn in degrees: most things stand as they were drawn.
_TURN = 20.0


@dataclass(frozen=True)
class Collages:
    """Renders collages; the same index gives the same scene.

    Attributes:
        photos: Where the backgrounds are taken from.
        cutouts: Pictures with an alpha channel; those that it cuts nothing out of are passed over.
        seed: Decides what is drawn.
        size: Side of a scene in pixels.
    """

    photos: tuple[CocoImage, ...]
    cutouts: tuple[Path, ...]
    seed: int
    size: int

    def __call__(self, index: int) -> Scene:
        """Render the collage of an index; consecutive ones take the photographs in turn."""
        rng = np.random.default_rng((self.seed, index))
        bank = noise_bank(self.size)
        painter = ScenePainter(bank, rng, self.size)
        self._lay_photo(painter, self.photos[index % len(self.photos)])
        sides = [log_uniform(rng, *_SIDES) for _ in range(rng.integers(1, _MOST_CUTOUTS + 1))]
        for side in sorted(sides, reverse=True):
            self._lay_cutout(painter, side * self.size)
        return Scene(photograph(bank, rng, painter.canvas), painter.label_maps.finish())

    def _lay_photo(self, painter: ScenePainter, photo: CocoImage) -> None:
        """Lay a crop of a photograph: its regions are units, its own masks objects."""
        image, masks = random_crop(painter.rng, *photo.read(_READ_SIDE), self.size)
        painter.canvas = np.ascontiguousarray(
            image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        )
        painter.label_maps.lay_regions(segmented(painter.rng, image, UNITS))
        areas = masks.mean(axis=(1, 2))
        for i in np.argsort(-areas, kind="stable"):
            if areas[i] >= _MIN_MASK_SHARE:
                painter.label_maps.lay_object(_sprite(0, 0, masks[i].astype(np.float32)))
        if painter.rng.random() < _BLURRED_SHARE:
            radius = float(painter.rng.uniform(0.8, 3.0)) * self.size / 256
            painter.canvas = blur(painter.canvas, radius)

    def _lay_cutout(self, painter: ScenePainter, side: float) -> None:
        rng = painter.rng
        alpha, colours = self._draw(rng, side)
        height, width = alpha.shape
        top, left = (rng.uniform(0, self.size, 2) - (height / 2, width / 2)).astype(int).tolist()
        # Cut to what lies in the scene.
        rows = slice(max(0, -top), min(height, self.size - top))
        columns = slice(max(0, -left), min(width, self.size - left))
        alpha, colours = alpha[rows, columns], colours[:, rows, columns]
        if min(alpha.shape) < 2 or not (alpha > 0.5).any():
            return
        parts = _parts(rng, alpha, colours)
        body = _lit(painter, colours)
        sprite = _sprite(top + rows.start, left + columns.start, alpha, parts)
        painter.paste(sprite, lambda: body, half_px=side / 2)

    def _draw(self, rng: np.random.Generator, side: float) -> tuple[Floats, Floats]:
        """Take the first of the pictures, from a random one on, that cuts something out."""
        first = int(rng.integers(len(self.cutouts)))
        for path in (*self.cutouts[first:], *self.cutouts[:first]):
            if cutout := read_cutout(path):
                return cutout.turned(
                    side=side,
                    aspect=log_uniform(rng, *_ASPECTS),
                    angle=float(rng.normal(0.0, _TURN)),
                    mirrored=bool(rng.random() < 0.5),
                )
        raise ConfigError(
            f"Expected pictures that their alpha channel cuts out. Received: {len(self.cutouts)} "
            "pictures that fill their frames, or next to nothing of them."
        )


def _sprite(top: int, left: int, alpha: Floats, parts: NDArray[np.uint8] | None = None) -> Sprite:
    layers = () if parts is None else (SpriteLayer(np.ones_like(alpha), parts, None),)
    return Sprite(top, left, alpha, layers, np.eye(2, 3), "flat")


def _parts(rng: np.random.Generator, alpha: Floats, colours: Floats) -> NDArray[np.uint8]:
    """Number a picture's regions, before light and camera blur them; 0 around it."""
    flat = np.where(alpha > 0.5, colours, np.float32(0)).transpose(1, 2, 0)
    regions = segmented(rng, (flat * 255).astype(np.uint8), PARTS)
    return np.where(alpha > 0.5, regions, np.uint8(0))


def _lit(painter: ScenePainter, colours: Floats) -> Floats:
    """Shade a flat drawing: other colours, light that falls off, and some grain."""
    rng = painter.rng
    height, width = colours.shape[1:]
    tint = np.exp(rng.normal(0.0, 0.12, 3)).astype(np.float32)
    body = np.float32(rng.uniform(0.5, 1.0)) * (colours * tint[:, None, None])
    body += np.float32(rng.uniform(0.0, 0.2))
    body *= linear_falloff(rng, height, width, strength=0.4)
    grain = painter.bank.fractal(rng, height, width, coarsest_px=max(4.0, height / 2))
    return np.asarray(body * (1 + np.float32(rng.uniform(0.0, 0.15)) * grain), np.float32)


def render_collages(
    directory: str | Path,
    photos: Sequence[CocoImage],
    cutouts: Path,
    *,
    count: int,
    seed: int = 0,
    size: int = 256,
    processes: int = 2,
) -> SceneCache:
    """Render collages into a folder; see `fill_cache`.

    Args:
        directory: Made if missing.
        photos: Where the backgrounds are taken from.
        cutouts: A folder with PNG files, in it or below.
        count: Number of collages.
        seed: Decides what is drawn.
        size: Side of a collage in pixels.
        processes: Worker processes; 1 renders in this process.

    Returns:
        The finished cache.

    Raises:
        ConfigError: If there are no photographs or no pictures, one cannot be read, scikit-image is
            missing, or the folder holds other scenes.
    """
    paths = tuple(sorted(cutouts.rglob("*.png")))
    if not photos or not paths:
        raise ConfigError(
            "Expected photographs, and PNG files to lay on them. "
            f"Received: {len(photos)}, and {len(paths)} in {cutouts}."
        )
    render = Collages(tuple(photos), paths, seed, size)
    names = json.dumps([str(path.relative_to(cutouts)) for path in paths])
    source = f"collages-{COLLAGES_VERSION}-{hashlib.sha256(names.encode()).hexdigest()[:8]}"
    meta = SceneCacheMeta(
        count=count, size=size, seed=seed, source=f"{source}-{fingerprint(render.photos)}"
    )
    return fill_cache(directory, meta, render, processes=processes)
