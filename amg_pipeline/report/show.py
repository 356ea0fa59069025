"""Masks over their image in a notebook, with the look that users of SAM know.

from amg_pipeline import show_masks
show_masks(image, generator.generate(image))
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.rle import decode_mask, rle_from_coco
from amg_pipeline.errors import ConfigError
from amg_pipeline.report.overlays import find_border
from amg_pipeline.report.sampled_masks import SampledMask
from amg_pipeline.storage.image_masks import ImageMasks

#: Opacity of a mask's colour, as in the reference.
FILL_ALPHA = 0.35
#: Colour and opacity of the line along a mask's border.
BORDER_RGBA = (0.0, 0.0, 1.0, 0.4)
_INCHES = 10.0


def show_masks(
    image: Any,
    masks: Any,
    *,
    ax: Any = None,
    borders: bool = True,
    seed: int = 0,
) -> Any:
    """Draw masks over their image with matplotlib.

    Args:
        image: The image, uint8 `(height, width, 3)` RGB, or what `numpy.asarray` makes one of.
        masks: What `generate` returned, with any `output_mode`; or a row of `load_masks` as a dict,
            or the `masks` of one.
        ax: The axes to draw on; new ones by default.
        borders: Whether each mask has a thin line around it.
        seed: Of the random colours; the same masks and seed have the same colours.

    Returns:
        The axes; `ax.figure.savefig(...)` keeps the drawing.

    Raises:
        ConfigError: If matplotlib is not installed, or `masks` are not masks of the image.
        StorageError: If a mask's run lengths are malformed or those of another size.

    Source:
        `show_anns` of the reference's notebook: the largest mask first, a random colour at an
        opacity of 0.35. The lines are those of its successor's notebook.
    """
    pyplot = require_pyplot()
    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3):
        raise ConfigError(
            f"image must be an array (height, width, 3). Received: shape {pixels.shape}"
        )
    height, width = pixels.shape[:2]
    layer = draw_layer(masks, height=height, width=width, borders=borders, seed=seed)
    if ax is None:
        scale = _INCHES / max(height, width)
        _, ax = pyplot.subplots(figsize=(width * scale, height * scale), layout="tight")
    ax.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None)
    ax.imshow(layer)
    ax.set_axis_off()
    return ax


def draw_layer(
    masks: Any, *, height: int, width: int, borders: bool = True, seed: int = 0
) -> NDArray[np.float32]:
    """Draw masks on a transparent ground, smaller ones over larger ones.

    Args:
        masks: As for `show_masks`.
        height: Rows of their image.
        width: Columns of their image.
        borders: Whether each mask has a thin line around it.
        seed: Of the random colours.

    Returns:
        Float32 `(height, width, 4)` RGBA in [0, 1].

    Raises:
        ConfigError: If these are no masks, or those of an image of another size.
        StorageError: If a mask's run lengths are malformed or those of another size.
    """
    layer = np.ones((height, width, 4), np.float32)
    layer[..., 3] = 0.0
    found = sorted(_decoded(masks, height, width), key=lambda mask: -int(mask.sum()))
    random = np.random.default_rng(seed)
    thickness = max(1, round(max(height, width) / 1000))
    for mask in found:
        layer[mask] = [*random.random(3), FILL_ALPHA]
        if borders:
            whole = SampledMask(0, mask, 0, 0)
            layer[find_border(whole, mask.shape, thickness=thickness)] = BORDER_RGBA
    return layer


def blend_layer(pixels: NDArray[np.uint8], layer: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Lay what `draw_layer` gave over an image, uint8 `(height, width, 3)` RGB."""
    alpha = layer[..., 3:]
    mixed = (1.0 - alpha) * pixels + alpha * (255.0 * layer[..., :3])
    picture: NDArray[np.uint8] = np.round(mixed).astype(np.uint8)
    return picture


def require_pyplot() -> Any:
    """Import matplotlib's pyplot.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ConfigError(
            "Showing masks needs matplotlib. Received: a Python without it. Install it with "
            "pip install 'amg_pipeline[show]'"
        ) from error
    return pyplot


def _decoded(masks: Any, height: int, width: int) -> Iterator[NDArray[np.bool_]]:
    for mask in _as_sequence(masks):
        pixels = _decode(mask, height, width)
        if pixels.shape != (height, width):
            raise ConfigError(
                f"masks must be of the image's {height} x {width} pixels (height x width). "
                f"Received: {' x '.join(map(str, pixels.shape))}"
            )
        yield pixels


def _as_sequence(masks: Any) -> Sequence[Any]:
    if hasattr(masks, "as_py"):
        # A value of an Arrow table.
        masks = masks.as_py()
    if isinstance(masks, ImageMasks):
        return [{"counts": counts} for counts in masks.counts]
    if isinstance(masks, Mapping) and "masks" in masks:
        masks = masks["masks"]
    if isinstance(masks, Mapping) or not isinstance(masks, Sequence | np.ndarray):
        raise ConfigError(
            "masks must be what `generate` returned, or a row of `load_masks` as a dict. "
            f"Received: {type(masks).__name__}"
        )
    return masks  # type: ignore[return-value]


def _decode(mask: Any, height: int, width: int) -> NDArray[np.bool_]:
    if isinstance(mask, np.ndarray):
        return mask.astype(np.bool_)
    found = mask.get("segmentation", mask) if isinstance(mask, Mapping) else None
    if isinstance(found, np.ndarray):
        return found.astype(np.bool_)
    if not isinstance(found, Mapping) or "counts" not in found:
        raise ConfigError(
            "Each mask must be a dict with `segmentation`, or with `counts`. "
            f"Received: {type(mask).__name__}"
        )
    # The Parquet's masks have the size of their image, and do not repeat it.
    return decode_mask(rle_from_coco({"size": (height, width), **found}))
