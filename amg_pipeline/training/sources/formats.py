"""The formats of data to train on, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.sources.coco import read_coco
from amg_pipeline.training.sources.label_files import read_label_files
from amg_pipeline.training.sources.labelled_image import LabelledImage
from amg_pipeline.training.sources.labelme import read_labelme
from amg_pipeline.training.sources.mask_folders import read_mask_folders
from amg_pipeline.training.sources.sa1b import read_sa1b
from amg_pipeline.training.sources.stored_run import read_run
from amg_pipeline.training.sources.synthetic import read_synthetic

#: Takes where the data are, or for `synthetic` how many; some take more.
SOURCES: Mapping[str, Callable[..., Sequence[LabelledImage]]] = {
    "coco": read_coco,
    "sa1b": read_sa1b,
    "run": read_run,
    "label-maps": read_label_files,
    "mask-folders": read_mask_folders,
    "labelme": read_labelme,
    "synthetic": read_synthetic,
}


def read_source(name: str, *arguments: Any, **options: Any) -> Sequence[LabelledImage]:
    """List the images of a place in one of the `SOURCES`.

    Args:
        name: Of the format.
        *arguments: What its reader takes: where the data are, or for `synthetic` how many scenes.
        **options: What else it takes, such as `images`.

    Returns:
        The images, always in the same order.

    Raises:
        ConfigError: If there is no such format or option, or the data are not in it.
    """
    reader = SOURCES.get(name)
    if reader is None:
        raise ConfigError(f"Data must be one of {', '.join(SOURCES)}. Received: {name!r}.")
    try:
        inspect.signature(reader).bind(*arguments, **options)
    except TypeError as error:
        raise ConfigError(
            f"Data of the format {name!r} take {', '.join(inspect.signature(reader).parameters)}. "
            f"Received: {error}."
        ) from error
    return reader(*arguments, **options)
