"""The row of an image that failed; or that it has none yet, because its attempt fails."""

from __future__ import annotations

import logging

from amg_pipeline.errors import ShardError
from amg_pipeline.records import ImageRef, ImageResult, ImageStatus
from amg_pipeline.shard_runner.fault_kinds import is_device_fault, is_memory_fault
from amg_pipeline.telemetry import log_event

_LOGGER = logging.getLogger(__name__)

#: The same on every machine: backends' own messages name devices and sizes of free memory.
_MEMORY_MESSAGE = "The image needs more memory than the worker has"


def failed_image(ref: ImageRef, status: str, error: Exception) -> ImageResult:
    """Give the row of an image without pixels, with what its error says."""
    checked: ImageStatus = status  # type: ignore[assignment]
    return ImageResult(
        ref,
        checked,
        error_type=type(error).__name__,
        error_message=str(error)[:500],
    )


def image_without_masks(
    ref: ImageRef, error: Exception, is_last_attempt: bool, *, size: tuple[int, int]
) -> ImageResult | None:
    """Give the row of an image whose masks could not be made.

    Returns:
        None if the error is to fail the attempt.

    Raises:
        ShardError: If the memory was full, and another attempt is left.
    """
    if is_memory_fault(error):
        return image_out_of_memory(ref, error, is_last_attempt, size=size)
    if not is_last_attempt or is_device_fault(error):
        return None
    # One image that the model fails on must not cost the others of its shard their rows.
    return _model_failure(ref, error, size=size)


def image_out_of_memory(
    ref: ImageRef,
    error: Exception,
    is_last_attempt: bool,
    *,
    size: tuple[int, int] | None = None,
) -> ImageResult:
    """Give the row of an image that does not fit into memory.

    Raises:
        ShardError: If another attempt is left.
    """
    if not is_last_attempt:
        raise ShardError(f"Image {ref.image_id!r}: {_MEMORY_MESSAGE}: {error}") from error
    height, width = size or (None, None)
    return ImageResult(
        ref,
        "out_of_memory",
        width=width,
        height=height,
        error_type=MemoryError.__name__,
        error_message=_MEMORY_MESSAGE,
    )


def _model_failure(ref: ImageRef, error: Exception, *, size: tuple[int, int]) -> ImageResult:
    log_event(
        _LOGGER, logging.ERROR, "the model failed on an image", cause=error, image_id=ref.image_id
    )
    return ImageResult(
        ref,
        "crash",
        width=size[1],
        height=size[0],
        error_type=type(error).__name__,
        # The error's own text may hold addresses and figures of the moment; the log has it.
        error_message="The model must come through every image. Received: an exception",
    )
