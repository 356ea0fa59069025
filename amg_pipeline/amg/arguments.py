"""Checks of what callers hand to the generator, and the choice of segmenter and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.amg.annotations import OutputMode
from amg_pipeline.amg.point_grid import RegionOfInterest
from amg_pipeline.amg.segmenter import Segmenter
from amg_pipeline.config import AmgSettings, amg_settings
from amg_pipeline.errors import ConfigError

#: What may be given by position after the model: the reference's order.
POSITIONAL_SETTINGS = (
    "points_per_side",
    "points_per_batch",
    "pred_iou_thresh",
    "stability_score_thresh",
    "stability_score_offset",
    "box_nms_thresh",
    "crop_n_layers",
    "crop_nms_thresh",
    "crop_overlap_ratio",
    "crop_n_points_downscale_factor",
    "point_grids",
    "min_mask_region_area",
    "output_mode",
)


@runtime_checkable
class SegmenterFactory(Protocol):
    """A model that makes segmenters for a fixed batch size, as `SAM` does."""

    def segmenter(
        self, *, points_per_batch: int, encoder_batch_size: int = 1
    ) -> Segmenter[Any, Any]:
        """Make a segmenter.

        Args:
            points_per_batch: The most points that one call of `score` gets.
            encoder_batch_size: The most crops that one call of `encode` gets.
        """
        ...


def merge_positional(positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Name the settings given by position, and add those given by name.

    Raises:
        ConfigError: If there are too many, or one is given both ways.
    """
    if len(positional) > len(POSITIONAL_SETTINGS):
        raise ConfigError(
            f"At most {len(POSITIONAL_SETTINGS)} settings may be given by position "
            f"({', '.join(POSITIONAL_SETTINGS)}). Received: {len(positional)}; name the others"
        )
    by_position = dict(zip(POSITIONAL_SETTINGS, positional, strict=False))
    twice = sorted(by_position.keys() & named.keys())
    if twice:
        raise ConfigError(
            "A setting must be given either by position or by name. "
            f"Received both for: {', '.join(twice)}"
        )
    return {**by_position, **named}


def resolve_model(
    model: object, given: dict[str, Any], *, encoder_batch_size: int
) -> tuple[Segmenter[Any, Any], AmgSettings]:
    """Make the segmenter, and the settings that its model's defaults complete.

    Args:
        model: A `SegmenterFactory` or a `Segmenter`.
        given: The caller's settings, and perhaps the name of a set as `settings`.
        encoder_batch_size: Crops per call of `Segmenter.encode`.

    Raises:
        ConfigError: If the model is of neither kind, or a setting is unknown or out of range.
    """
    if given.get("point_grids") is not None:
        grids = [np.asarray(grid, np.float64).tolist() for grid in given["point_grids"]]
        given = {**given, "point_grids": grids}
    # The model's defaults are known by the segmenter, and the segmenter needs a batch size.
    settings = amg_settings(None, **given)
    if not isinstance(model, SegmenterFactory):
        if not isinstance(model, Segmenter):
            raise ConfigError(
                "The model must have a method segmenter(points_per_batch=..., "
                "encoder_batch_size=...), as SAM has, or be a Segmenter with encode, score and "
                f"measure. Received: {type(model).__name__}"
            )
        return model, amg_settings(model.variant, **given)
    segmenter = model.segmenter(
        points_per_batch=settings.points_per_batch, encoder_batch_size=encoder_batch_size
    )
    resolved = amg_settings(segmenter.variant, **given)
    if resolved.points_per_batch != settings.points_per_batch:
        segmenter = model.segmenter(
            points_per_batch=resolved.points_per_batch, encoder_batch_size=encoder_batch_size
        )
    return segmenter, resolved


def check_output_mode(output_mode: Any) -> OutputMode:
    """Accept one of the modes of `OutputMode`, or raise `ConfigError`."""
    modes = get_args(OutputMode)
    if output_mode not in modes:
        raise ConfigError(
            f"output_mode must be one of {', '.join(modes)}. Received: {output_mode!r}"
        )
    checked: OutputMode = output_mode
    return checked


def check_image(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Return height and width of a uint8 RGB image, or raise `ConfigError`."""
    expected = "The image must be a uint8 array (height, width, 3) in RGB with at least one pixel. "
    if not isinstance(image, np.ndarray):
        raise ConfigError(f"{expected}Received: {type(image).__name__}; use np.asarray(...)")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ConfigError(f"{expected}Received: {image.dtype} array of shape {image.shape}")
    return image.shape[0], image.shape[1]


def check_region(
    region: RegionOfInterest | None, *, height: int, width: int
) -> RegionOfInterest | None:
    """Accept a box, or a bool mask of the image's shape, or raise `ConfigError`."""
    if isinstance(region, np.ndarray) and region.ndim == 2:
        if region.dtype != bool or region.shape != (height, width):
            raise ConfigError(
                "A mask as region_of_interest must be a bool array of the image's shape "
                f"{(height, width)}. Received: {region.dtype} array of shape {region.shape}"
            )
        return region
    if region is None:
        return None
    corners = [float(side) for side in region]
    if len(corners) != 4:
        raise ConfigError(
            f"A box as region_of_interest must be four numbers XYXY in pixels. Received: {region!r}"
        )
    return (corners[0], corners[1], corners[2], corners[3])
