"""Paints surfaces: the texture families of synthetic scenes.

Every texture is a planar float32 `(3, height, width)` RGB patch, nominally in [0, 1] (the camera
clips later): NumPy is several times faster when the long axes come last. Lengths are in pixels
of the scene unless a name says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from amg_pipeline.training.noise import Floats, NoiseBank

_Painter: TypeAlias = Callable[[NoiseBank, np.random.Generator, int, int, Floats], Floats]


def _flat(height: int, width: int, colour: Floats) -> Floats:
    return np.broadcast_to(colour[:, None, None], (3, height, width)).astype(np.float32)


def _mix(first: Floats, second: Floats, share: Floats) -> Floats:
    """Go from one colour or patch to another by a share in [0, 1], `(height, width)`."""
    first = first if first.ndim == 3 else first[:, None, None]
    second = second if second.ndim == 3 else second[:, None, None]
    return np.asarray(first + (second - first) * share, np.float32)


def _wavelength(rng: np.random.Generator, bank: NoiseBank, height: int, width: int) -> float:
    """Draw the length of a pattern: log-uniform from 3 px at 256 to most of the patch."""
    low = max(2.5, bank.size * 3 / 256)
    high = max(low * 1.5, min(0.6 * max(height, width), bank.size / 4))
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _phase(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, *, wavelength: float
) -> Floats:
    """Return a warped oriented ramp, `(height, width)`, in radians."""
    angle = rng.uniform(0.0, np.pi) if rng.random() < 0.6 else rng.integers(2) * np.pi / 2
    frequency = 2.0 * np.pi / wavelength
    x = np.arange(width, dtype=np.float32)[None, :] * np.float32(np.cos(angle) * frequency)
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(np.sin(angle) * frequency)
    warp = rng.choice([0.0, 0.3, 1.0, 2.5])
    ramp = x + y + np.float32(rng.uniform(0.0, 2 * np.pi))
    if warp:
        coarse = bank.octave_of(wavelength * rng.uniform(2.0, 8.0))
        ramp = ramp + np.float32(warp) * bank.crop(rng, height, width, octave=coarse)
    return np.asarray(ramp, np.float32)


def _soft_step(field: Floats, sharpness: float) -> Floats:
    """Squash a field of about unit range into [0, 1]; large sharpness makes two levels."""
    squashed = np.clip(field * np.float32(sharpness) + np.float32(0.5), 0.0, 1.0)
    return np.asarray(squashed, np.float32)


def _solid(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    shade = bank.crop(rng, height, width, octave=int(rng.integers(0, 3)))
    amount = np.float32(rng.uniform(0.0, 0.06))
    return np.asarray(palette[0][:, None, None] * (1.0 + amount * shade), np.float32)


def _gradient(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    angle = rng.uniform(0.0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :] * np.float32(np.cos(angle))
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    return _mix(palette[0], palette[1], _soft_step(x + y, 0.8))


def _noise(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    field = bank.fractal(
        rng,
        height,
        width,
        coarsest_px=_wavelength(rng, bank, height, width),
        persistence=float(rng.uniform(0.5, 1.0)),
    )
    return _mix(palette[0], palette[1], _soft_step(field, float(rng.uniform(0.12, 0.35))))


def _patches(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    """Camouflage, lichen, cloud: two or three colours with soft irregular borders."""
    wavelength = _wavelength(rng, bank, height, width)
    steep = float(rng.uniform(0.5, 4.0))
    out = _flat(height, width, palette[0])
    for colour in palette[1 : 2 + int(rng.integers(2))]:
        field = bank.fractal(rng, height, width, coarsest_px=wavelength, persistence=0.5)
        out = _mix(out, colour, _soft_step(field - np.float32(rng.uniform(0.0, 1.0)), steep))
    return out


def _stripes(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    wavelength = _wavelength(rng, bank, height, width)
    wave = np.sin(_phase(bank, rng, height, width, wavelength=wavelength))
    # No sharper than a pixel: the patch is not supersampled.
    steep = float(rng.uniform(0.5, max(0.6, min(4.0, wavelength / 6))))
    return _mix(
        palette[0], palette[1], _soft_step(wave + np.float32(rng.uniform(-0.5, 0.5)), steep)
    )


def _checker(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    """Checks, plaid and tiles: the product or the larger of two crossed waves."""
    wavelength = _wavelength(rng, bank, height, width) * 1.5
    angle = rng.uniform(0.0, np.pi) if rng.random() < 0.5 else 0.0
    frequency = np.float32(2 * np.pi / wavelength)
    x = np.arange(width, dtype=np.float32)[None, :] * frequency
    y = np.arange(height, dtype=np.float32)[:, None] * frequency
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = np.sin(cos * x + sin * y), np.sin(cos * y * np.float32(rng.uniform(0.5, 2.0)) - sin * x)
    steep = float(rng.uniform(0.8, max(0.9, min(5.0, wavelength / 5))))
    kind = rng.integers(3)
    if kind == 0:
        return _mix(palette[0], palette[1], _soft_step(u * v, steep))
    if kind == 1:  # plaid: transparent bands over each other
        cloth = _mix(palette[0], palette[1], 0.6 * _soft_step(np.broadcast_to(u, v.shape), steep))
        return _mix(cloth, palette[2], 0.6 * _soft_step(v, steep))
    joints = np.maximum(np.abs(u) ** 8, np.abs(v) ** 8)
    return _mix(palette[0], palette[1], joints.astype(np.float32))


def _spots(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    octave = bank.octave_of(_wavelength(rng, bank, height, width))
    field = bank.crop(rng, height, width, octave=octave)
    level = np.float32(rng.uniform(0.6, 1.4))
    return _mix(palette[0], palette[1], _soft_step(field - level, float(rng.uniform(1.0, 5.0))))


def _grain_of_wood(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    """Wood and marble: sines of a ramp that strong noise bends."""
    wavelength = _wavelength(rng, bank, height, width)
    angle = float(rng.uniform(0.0, np.pi))
    bend = bank.oriented(
        rng,
        height,
        width,
        wavelength_px=wavelength * 3,
        angle=angle,
        stretch=float(rng.uniform(1.0, 6.0)),
    )
    ramp = _phase(bank, rng, height, width, wavelength=wavelength * 2)
    wave = np.sin(ramp * np.float32(0.5) + np.float32(rng.uniform(1.0, 4.0)) * bend)
    if rng.random() < 0.4:  # veins
        wave = 1.0 - 2.0 * np.abs(wave) ** np.float32(0.5)
    return _mix(palette[0], palette[1], _soft_step(wave, 0.5))


def _ridges(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    """Cracks, foliage, crumpled cloth: creases where noise changes sign."""
    wavelength = _wavelength(rng, bank, height, width)
    height_left = np.full((height, width), 1.2, np.float32)
    for share in (1.0, 0.5, 0.25):
        octave = bank.octave_of(wavelength * share)
        height_left -= np.float32(share) * np.abs(bank.crop(rng, height, width, octave=octave))
    return _mix(palette[0], palette[1], _soft_step(height_left, float(rng.uniform(0.3, 0.9))))


def _fibres(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    """Grass, fur, brushed metal, water: noise drawn out in one direction."""
    angle = float(rng.choice([0.0, np.pi / 2, rng.uniform(0.0, np.pi)]) + rng.normal(0.0, 0.1))
    wavelength = max(2.0, _wavelength(rng, bank, height, width) / 2)
    stretch = float(rng.uniform(2.0, 8.0))
    field = bank.oriented(
        rng, height, width, wavelength_px=wavelength, angle=angle, stretch=stretch
    ) + 0.7 * bank.oriented(
        rng, height, width, wavelength_px=wavelength / 2, angle=angle + 0.1, stretch=stretch
    )
    return _mix(palette[0], palette[1], _soft_step(field, float(rng.uniform(0.15, 0.4))))


def _speckle(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    """Gravel, terrazzo, sand: small grains of several colours."""
    grain = float(rng.uniform(1.0, 4.0)) * bank.size / 256
    first = bank.crop(rng, height, width, octave=bank.octave_of(grain))
    second = bank.crop(rng, height, width, octave=bank.octave_of(grain * 2))
    out = _mix(palette[0], palette[1], _soft_step(first, float(rng.uniform(0.1, 0.5))))
    return _mix(out, palette[2], _soft_step(second - 1.2, float(rng.uniform(0.5, 2.0))))


def _dead_leaves(
    bank: NoiseBank, rng: np.random.Generator, height: int, width: int, palette: Floats
) -> Floats:
    """Foliage, pebbles, shards, blades: small opaque elements that hide each other.

    Source: the dead leaves model of natural images (Matheron 1968; Lee, Mumford, Huang 2001).
    """
    scale = bank.size / 256
    largest = float(np.exp(rng.uniform(np.log(3.0), np.log(11.0)))) * scale
    num = int(min(500, 2.0 * height * width / largest**2))
    # Sizes of density 1 / r**3, as the model asks for; the larger ones lie below.
    ratio = 1.0 / np.sqrt(1.0 + rng.random(num) * 15.0)
    radius = np.sort(ratio)[::-1] * largest
    x, y = rng.uniform(0.0, width, num), rng.uniform(0.0, height, num)
    angle = rng.normal(rng.uniform(0.0, np.pi), rng.choice([0.15, 0.6, 2.0]), num)
    slim = float(rng.choice([1.0, 0.6, 0.3]))
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    across = np.stack([-np.sin(angle), np.cos(angle)], axis=1) * (slim * radius)[:, None]
    corners = _LEAF_OUTLINES[int(rng.integers(len(_LEAF_OUTLINES)))]
    centre = np.stack([x, y], axis=1)[:, None, :]
    leaves = centre + corners[:, :1] * along[:, None, :] + corners[:, 1:] * across[:, None, :]
    share = rng.random((num, 1)) * rng.uniform(0.3, 1.0)
    tone = np.exp(rng.normal(0.0, rng.uniform(0.05, 0.35), (num, 1)))
    colours = np.clip((palette[0] + (palette[1] - palette[0]) * share) * tone, 0, 1) * 255
    image = Image.new("RGB", (2 * width, 2 * height), tuple((palette[0] * 160).astype(int)))
    pen = ImageDraw.Draw(image)
    for outline, colour in zip(
        (2 * leaves).reshape(num, -1).tolist(), colours.astype(int).tolist(), strict=True
    ):
        pen.polygon(outline, fill=tuple(colour))
    return planar(image.reduce(2))


def planar(image: Image.Image) -> Floats:
    """Return an 8-bit RGB image as planar floats in [0, 1], `(3, height, width)`."""
    pixels = np.asarray(image, np.uint8).transpose(2, 0, 1)
    return np.asarray(pixels * np.float32(1 / 255), np.float32)


def _ring_of(num: int) -> NDArray[np.float64]:
    angle = np.arange(num) * 2 * np.pi / num
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


_LEAF_OUTLINES = (
    _ring_of(9),  # discs
    np.array([(-1.0, 0.0), (0.0, 0.6), (1.0, 0.0), (0.0, -0.6)]),  # leaves
    np.array([(-1.0, -0.7), (0.9, -1.0), (0.6, 0.9), (-0.5, 0.6)]),  # stones
    np.array([(-2.0, -0.2), (2.5, 0.0), (-2.0, 0.2)]),  # blades
)


_PAINTERS: tuple[tuple[float, _Painter], ...] = (
    (0.14, _solid),
    (0.10, _gradient),
    (0.18, _noise),
    (0.08, _patches),
    (0.07, _stripes),
    (0.05, _checker),
    (0.05, _spots),
    (0.06, _grain_of_wood),
    (0.07, _ridges),
    (0.08, _fibres),
    (0.05, _speckle),
    (0.14, _dead_leaves),
)
_PAINTER_ENDS = np.cumsum([weight for weight, _ in _PAINTERS])
_PAINTER_ENDS = _PAINTER_ENDS / _PAINTER_ENDS[-1]
NUM_FAMILIES = len(_PAINTERS)


def random_family(rng: np.random.Generator) -> int:
    """Draw a texture family, an index below `NUM_FAMILIES`."""
    return int(np.searchsorted(_PAINTER_ENDS, rng.random(), side="right"))


def paint_texture(
    bank: NoiseBank,
    rng: np.random.Generator,
    height: int,
    width: int,
    *,
    family: int,
    palette: Floats,
) -> Floats:
    """Paint a patch of one texture family.

    Args:
        bank: Noise of the scene's size; the patch must not be larger than the scene.
        rng: Source of all randomness.
        height: Patch height in pixels.
        width: Patch width in pixels.
        family: Index below `NUM_FAMILIES`.
        palette: `(3, 3)` RGB colours, the base first.

    Returns:
        A new planar float32 `(3, height, width)` array, about [0, 1].
    """
    surface = _PAINTERS[family][1](bank, rng, height, width, palette)
    # No real surface is free of fine grain and of uneven light.
    grain = bank.grain(rng, height, width)
    amount = np.float32(rng.choice([0.01, 0.03, 0.07, 0.15]) * rng.uniform(0.5, 1.5))
    return np.asarray(surface * (1.0 + amount * grain), np.float32)
