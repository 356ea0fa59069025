"""Masks as one step of somebody else's Ray Data pipeline, by the code that runs shards.

    photos = ray.data.read_binary_files("s3://bucket/photos", include_paths=True)
    masked = photos.map_batches(
        GenerateMasks,
        fn_constructor_kwargs={"model": {"variant": "vit_h", "weights": "s3://bucket/vit_h.pth"}},
        batch_format="pyarrow",
        batch_size=8,
        num_gpus=1,
        concurrency=4,
    )

Ray Data decides what is tried again and what is kept; who needs exact resumption, or a row for an
image that kills its process, uses `amg run`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import ray

from amg_pipeline.config import RunConfig, load_config
from amg_pipeline.errors import ConfigError, ImageError
from amg_pipeline.records import ImageRef, ImageResult
from amg_pipeline.shard_runner import MaskGenerator, make_mask_generator
from amg_pipeline.shard_runner.failed_images import failed_image
from amg_pipeline.storage.images import decode_image
from amg_pipeline.storage.mask_table import MASK_SCHEMA, results_to_table

#: What is added to each row: columns of `amg run`'s output, of the same types.
RESULT_COLUMNS: tuple[str, ...] = tuple(
    name for name in MASK_SCHEMA.names if name not in {"image_id", "uri"}
)
_BINARY_TYPES = frozenset({"binary", "large_binary", "binary_view"})


class GenerateMasks:
    """Adds masks to batches of rows that hold image files; for `Dataset.map_batches`.

    The model is loaded once per actor. An actor without a GPU sees none.

    Args:
        column: Where the bytes of the image files are.
        model: Settings as in the section `model` of a run's YAML file. Give `intra_op_threads` as
            many as the actor's `num_cpus`.
        amg: Settings as in the section `amg`.
        images: Settings as in the section `images`: `max_pixels` and `exif_orientation`.
        make_generator: Loads the model.

    Raises:
        ConfigError: If a setting is unknown or out of range.
        WeightsError: If the weights cannot be loaded.
    """

    def __init__(
        self,
        column: str = "bytes",
        *,
        model: Mapping[str, Any] | None = None,
        amg: Mapping[str, Any] | None = None,
        images: Mapping[str, Any] | None = None,
        make_generator: Callable[[RunConfig], MaskGenerator] = make_mask_generator,
    ) -> None:
        sections = {"model": model or {}, "amg": amg or {}, "images": images or {}}
        config = load_config(settings=sections)
        _hide_gpus_of_others()
        self._column = column
        self._images = config.images
        self._generate = make_generator(config)

    def __call__(self, batch: Any) -> Any:
        """Add `RESULT_COLUMNS` to a batch.

        Args:
            batch: A `pyarrow.Table` (`batch_format="pyarrow"`).

        Returns:
            The same rows with the columns added; a file that is no image has a row that says why.

        Raises:
            ConfigError: If the batch has no column of bytes, or one that would be added.
        """
        _check(batch, self._column)
        results = results_to_table([self._run(data) for data in batch[self._column].to_pylist()])
        for name in RESULT_COLUMNS:
            batch = batch.append_column(MASK_SCHEMA.field(name), results[name])
        return batch

    def _run(self, data: bytes | None) -> ImageResult:
        ref = ImageRef("", "")
        images = self._images
        try:
            pixels = decode_image(
                data or b"",
                exif_orientation=images.exif_orientation,
                max_pixels=images.max_pixels,
            )
        except ImageError as error:
            return failed_image(ref, error.status, error)
        height, width = pixels.shape[:2]
        masks = self._generate(pixels).to_records()
        return ImageResult(ref, "ok", width=width, height=height, masks=masks)


def _check(batch: Any, column: str) -> None:
    names = getattr(batch, "column_names", None)
    if names is None:
        raise ConfigError(
            'GenerateMasks needs map_batches(..., batch_format="pyarrow"). Received: a batch of '
            f"type {type(batch).__name__}"
        )
    kinds = {part.name: str(part.type) for part in batch.schema}
    if kinds.get(column) not in _BINARY_TYPES:
        raise ConfigError(
            f"Column {column!r} must hold the bytes of image files, as ray.data.read_binary_files "
            f"gives them. Received: {kinds}. Name another with GenerateMasks(column=...)"
        )
    taken = sorted(set(names) & set(RESULT_COLUMNS))
    if taken:
        raise ConfigError(f"GenerateMasks adds {taken}, which the rows have already: rename them")


def _hide_gpus_of_others() -> None:
    """Since Ray 2.60 an actor that asks for no GPU sees all of them; before Keras is imported."""
    if ray.is_initialized() and not ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
