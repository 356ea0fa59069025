"""Makes training scenes of photographs with clip art laid on them (copy-paste augmentation).

A drawing of many colours with an exact outline teaches what classical segmentation of photographs
cannot: that a thing is more than a region of one colour. The photograph behind it has the masks of
`photo_scenes`; light and camera are as in other scenes.
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
from amg_pipeline.training.clip_art import ClipArt, read_clip_art
from amg_pipeline.training.label_maps import PARTS, lay_over
from amg_pipeline.training.layouts import log_uniform
from amg_pipeline.training.noise import Floats, blur, noise_bank
from amg_pipeline.training.painter import ScenePainter
from amg_pipeline.training.photo_scenes import photo_scene, photos_fingerprint, segment_level
from amg_pipeline.training.relief import linear_falloff
from amg_pipeline.training.scene_cache import SceneCache, SceneCacheMeta, fill_cache
from amg_pipeline.training.scenes import Scene
from amg_pipeline.training.sources.coco import CocoImage
from amg_pipeline.training.sources.folders import list_files
from amg_pipeline.training.sprites import Sprite, SpriteLayer

#: Raised whenever the same pictures and seed give other scenes than before.
COLLAGES_VERSION = 1
_MOST_DRAWINGS = 7
#: Longer side of a drawing, as a share of the scene's.
_SIDES = (0.12, 0.95)
_ASPECTS = (0.75, 1.33)
_BLURRED_SHARE = 0.25
#: Standard deviation of the turn in degrees: most things stand as they were drawn.
_TURN = 20.0
#: So many unusable pictures in a row, and the folder is taken for the wrong one.
_MOST_TRIES = 200
#: Farther from every colour than any two colours are.
_NO_COLOUR = -1.0


@dataclass(frozen=True)
class Collages:
    """Renders collages; the same index gives the same scene.

    Attributes:
        photos: Where the backgrounds are taken from.
        drawings: Pictures with an alpha channel; those that it cuts nothing out of are passed over.
        seed: Decides what is drawn.
        size: Side of a scene in pixels.
    """

    photos: tuple[CocoImage, ...]
    drawings: tuple[Path, ...]
    seed: int
    size: int

    def __call__(self, index: int) -> Scene:
        """Render the collage of an index; consecutive ones take the photographs in turn."""
        rng = np.random.default_rng((self.seed, index))
        bank = noise_bank(self.size)
        ground = photo_scene(rng, self.photos[index % len(self.photos)], self.size)
        painter = ScenePainter(bank, rng, self.size)
        planar = ground.image.transpose(2, 0, 1).astype(np.float32)
        painter.canvas = np.ascontiguousarray(planar) / np.float32(255)
        if rng.random() < _BLURRED_SHARE:
            painter.canvas = blur(painter.canvas, float(rng.uniform(0.8, 3.0)) * self.size / 256)
        sides = [log_uniform(rng, *_SIDES) for _ in range(rng.integers(1, _MOST_DRAWINGS + 1))]
        for side in sorted(sides, reverse=True):
            _lay(painter, self._draw(rng), side * self.size)
        labels = lay_over(painter.label_maps.finish(), ground.label_maps)
        return Scene(photograph(bank, rng, painter.canvas), labels)

    def _draw(self, rng: np.random.Generator) -> ClipArt:
        for _ in range(_MOST_TRIES):
            if drawing := read_clip_art(self.drawings[int(rng.integers(len(self.drawings)))]):
                return drawing
        raise ConfigError(
            "Expected pictures that their alpha channel cuts out. Received: none in "
            f"{_MOST_TRIES} draws of {len(self.drawings)}: they fill their frames, or next to "
            "nothing of them, or are tiny."
        )


def _lay(painter: ScenePainter, drawing: ClipArt, side: float) -> None:
    """Lay a drawing anywhere on the scene, with its longer side of so many pixels."""
    rng, size = painter.rng, painter.size
    alpha, colours = drawing.turned(
        side=side,
        aspect=log_uniform(rng, *_ASPECTS),
        angle=float(rng.normal(0.0, _TURN)),
        mirrored=bool(rng.random() < 0.5),
    )
    height, width = alpha.shape
    top, left = (rng.uniform(0, size, 2) - (height / 2, width / 2)).astype(int).tolist()
    # Cut to what lies in the scene.
    rows = slice(max(0, -top), min(height, size - top))
    columns = slice(max(0, -left), min(width, size - left))
    alpha, colours = alpha[rows, columns], colours[:, rows, columns]
    if min(alpha.shape) < 2 or not (alpha > 0.5).any():
        return
    layer = SpriteLayer(np.ones_like(alpha), _parts(rng, alpha, colours, size), None)
    sprite = Sprite(top + rows.start, left + columns.start, alpha, (layer,), np.eye(2, 3), "flat")
    body = _lit(painter, colours)
    painter.paste(sprite, lambda: body, half_px=float(np.sqrt(height * width)) / 2)


def _parts(
    rng: np.random.Generator, alpha: Floats, colours: Floats, scene_size: int
) -> NDArray[np.uint8]:
    """Number a drawing's regions, before light and camera blur them; 0 around it."""
    inside = alpha > 0.5
    flat = np.where(inside, colours, np.float32(_NO_COLOUR)).transpose(1, 2, 0)
    return np.where(inside, segment_level(rng, flat, PARTS, scene_size=scene_size), np.uint8(0))


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
    clip_art: Path,
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
        clip_art: A folder with PNG files, in it or below.
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
    paths = tuple(list_files(clip_art, frozenset({".png"})))
    if not photos or not paths:
        raise ConfigError(
            "Expected photographs, and PNG files to lay on them. "
            f"Received: {len(photos)}, and {len(paths)} in {clip_art}."
        )
    render = Collages(tuple(photos), paths, seed, size)
    listed = json.dumps([(str(p.relative_to(clip_art)), p.stat().st_size) for p in paths])
    source = f"collages-{COLLAGES_VERSION}-{hashlib.sha256(listed.encode()).hexdigest()[:8]}"
    meta = SceneCacheMeta(
        count=count, size=size, seed=seed, source=f"{source}-{photos_fingerprint(render.photos)}"
    )
    return fill_cache(directory, meta, render, processes=processes)
