"""The page of a stored run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError, ImageFetchError, StorageError
from amg_pipeline.records import ImageRef
from amg_pipeline.report.html import write_report
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_directory import RunDirectory


def write_run_report(run_uri: str, destination: Path, *, title: str, limit: int = 100) -> Path:
    """Write the page of a run from its output alone; the run may still be going.

    Args:
        run_uri: The run's output.
        destination: Folder of the page; made if missing.
        title: Heading of the page.
        limit: The most photos that the page shows; its totals count all.

    Returns:
        Path of `index.html`.

    Raises:
        ConfigError: If `run_uri` is not the output of a run.
        StorageError: If the output cannot be read.
    """
    plan = RunDirectory.open(run_uri).require_plan()
    images = ImageSettings.model_validate(plan.config["images"])

    def load_pixels(uri: str) -> NDArray[np.uint8]:
        try:
            image = load_image(
                ImageRef(uri, uri),
                exif_orientation=images.exif_orientation,
                max_pixels=images.max_pixels,
            )
        except (StorageError, ConfigError) as error:
            # One photo that cannot be read here and now is no reason for no page at all.
            raise ImageFetchError(str(error)) from error
        return image.pixels

    return write_report(
        _rows(run_uri), destination, load_pixels=load_pixels, title=title, limit=limit
    )


def _rows(run_uri: str) -> Iterator[Mapping[str, Any]]:
    batches = load_masks(run_uri).to_batches()
    while True:
        try:
            batch = next(batches, None)
        except (OSError, ValueError) as error:  # Arrow's errors are these too
            raise StorageError(
                f"Every shard must be a readable Parquet file. Received: {type(error).__name__}. "
                "Find the damaged one with `amg verify`"
            ) from error
        if batch is None:
            return
        yield from batch.to_pylist()
