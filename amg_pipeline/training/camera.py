"""Photographs a painted scene: optics, sensor, development and JPEG."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.training.colours import luminance
from amg_pipeline.training.noise import Floats, NoiseBank, blur

_GREY_SHARE = 0.04


def to_uint8(image: Floats) -> NDArray[np.uint8]:
    """Round planar RGB in [0, 1], `(3, h, w)`, to 8 bits, `(h, w, 3)`; clip what lies outside."""
    pixels = np.clip(image * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0))


def photograph(bank: NoiseBank, rng: np.random.Generator, image: Floats) -> NDArray[np.uint8]:
    """Turn a painted scene into what a camera would have stored.

    Args:
        bank: Noise of the scene's size.
        rng: Source of all randomness.
        image: Planar `(3, size, size)` painted RGB, about [0, 1]; not changed.

    Returns:
        uint8 `(size, size, 3)` RGB, after the round trip through JPEG.
    """
    size = image.shape[1]
    image = _light(bank, rng, image)
    scale = size / 256
    choice = rng.random()
    if choice < 0.2:
        image = blur(image, float(rng.uniform(0.3, 0.9)) * scale)
    elif choice < 0.24:
        image = _motion_blur(rng, image)
    image = _expose(rng, image)
    image = _sense(bank, rng, image)
    if rng.random() < 0.5:
        image = _sharpen(rng, image, scale)
    if rng.random() < _GREY_SHARE:
        image = np.repeat(luminance(image)[None], 3, axis=0)
    pixels = to_uint8(image)
    return _jpeg(rng, pixels) if rng.random() < 0.85 else pixels


def _light(bank: NoiseBank, rng: np.random.Generator, image: Floats) -> Floats:
    """Apply uneven illumination, sometimes the dappled shadow of things outside the picture."""
    size = image.shape[1]
    level = np.ones((size, size), np.float32)
    if rng.random() < 0.6:
        amount = np.float32(rng.uniform(0.02, 0.14))
        level += amount * bank.crop(rng, size, size, octave=int(rng.integers(0, 2)))
    if rng.random() < 0.15:
        coarse = float(rng.uniform(0.1, 0.8)) * size
        field = bank.fractal(rng, size, size, coarsest_px=coarse, finest_px=coarse / 4)
        shade = np.clip(field * np.float32(rng.uniform(1.0, 6.0)), 0.0, 1.0)
        level *= 1.0 - np.float32(rng.uniform(0.15, 0.55)) * shade
    if rng.random() < 0.5:
        axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
        radius_sq = axis[:, None] ** 2 + axis[None, :] ** 2
        level *= 1.0 - np.float32(rng.uniform(0.02, 0.18)) * radius_sq
    return np.asarray(image * np.maximum(level, np.float32(0.05)), np.float32)


def _motion_blur(rng: np.random.Generator, image: Floats) -> Floats:
    """Average a few copies along a short straight path."""
    angle, length = rng.uniform(0.0, np.pi), rng.uniform(1.0, 4.0) * image.shape[1] / 256
    shifts = {
        (round(step * float(np.sin(angle))), round(step * float(np.cos(angle))))
        for step in np.linspace(-length / 2, length / 2, 5)
    }
    pad = int(np.ceil(length))
    padded = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode="edge")
    total = np.zeros_like(image)
    # Sorted: the order of a sum of floats must not depend on that of a set.
    for down, right in sorted(shifts):
        rows = slice(pad + down, pad + down + image.shape[1])
        columns = slice(pad + right, pad + right + image.shape[2])
        total += padded[:, rows, columns]
    return np.asarray(total / np.float32(len(shifts)), np.float32)


def _expose(rng: np.random.Generator, image: Floats) -> Floats:
    """Develop the picture: white balance, gamma, saturation, contrast, black and white point.

    Contrast and saturation aim at what photographs show (measured on freely licensed ones:
    luma deviates by 0.23 +- 0.05, most colours are muted), whatever the paints happened to be.
    """
    gains = (1.0 + rng.normal(0.0, 0.05, 3)).astype(np.float32)
    gamma = np.float32(np.exp(rng.normal(0.0, 0.15)))
    # A power by logarithms: NumPy's own takes four times as long.
    image = np.exp(gamma * np.log(np.clip(image * gains[:, None, None], 1e-3, 1.2)))
    luma = luminance(image)
    mean, spread = float(luma.mean()), max(float(luma.std()), 0.02)
    contrast = float(np.clip(np.clip(rng.normal(0.24, 0.05), 0.1, 0.36) / spread, 0.7, 2.2))
    level = np.float32(np.clip(rng.normal(0.43, 0.09), 0.2, 0.7))
    colour = image - luma
    aim = float(np.exp(rng.normal(np.log(0.055), 0.6)))
    saturation = min(aim / max(float(np.abs(colour).mean()), 1e-3), 1.2)
    out = np.float32(saturation) * colour
    out += _rolled_off((luma - np.float32(mean)) * np.float32(contrast) + level)
    return np.asarray(out, np.float32)


def _rolled_off(level: Floats) -> Floats:
    """Bend the ends of the tone curve, as film does, so that dark and bright things keep edges."""
    knee = np.float32(0.12)
    low = knee * np.exp(np.minimum(level - knee, 0.0) / knee)
    high = knee * np.exp(np.minimum(np.float32(1.0) - knee - level, 0.0) / knee)
    out = np.where(level < knee, low, level)
    return np.asarray(np.where(level > 1.0 - knee, 1.0 - high, out), np.float32)


def _sense(bank: NoiseBank, rng: np.random.Generator, image: Floats) -> Floats:
    """Add read noise and shot noise; sometimes coarse, as after a camera's own denoising."""
    size = image.shape[1]
    read = float(rng.choice([0.0, 0.004, 0.012, 0.03]) * rng.uniform(0.5, 1.5))
    if not read:
        return image
    octave = len(bank.octaves) - 1 - int(rng.random() < 0.3)
    spread = np.float32(read) * np.sqrt(np.clip(image, 0.02, 1.0) + np.float32(0.3))
    noise = np.stack([bank.crop(rng, size, size, octave=octave) for _ in range(3)])
    if rng.random() < 0.5:  # luminance noise only
        noise = noise[:1]
    return np.asarray(image + spread * noise, np.float32)


def _sharpen(rng: np.random.Generator, image: Floats, scale: float) -> Floats:
    """Add an unsharp mask, which leaves faint halos as cameras do."""
    soft = blur(np.clip(image, 0.0, 1.0), float(rng.uniform(0.7, 1.3)) * scale)
    return np.asarray(image + np.float32(rng.uniform(0.2, 1.2)) * (image - soft), np.float32)


def _jpeg(rng: np.random.Generator, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    stored = io.BytesIO()
    quality = int(rng.integers(40, 96))
    Image.fromarray(pixels).save(stored, "JPEG", quality=quality, subsampling=2)
    return np.asarray(Image.open(stored), np.uint8)
