"""One shard from start to commit, without Ray: load, generate, make the table, put it.

Every runner, local or distributed, runs shards through `ShardRunner`, so that there is one place
where an image's fate is decided. An image that is damaged gets its row at once. A fault that may
pass (throttling, memory) fails the attempt, unless the caller says that it is the last one.

The model waits for nothing but itself: the next images are fetched and decoded while it works, and
the masks of the last ones are cleaned and encoded. A runner may be given a second shard from
another thread while it works on one: its first images are loaded meanwhile, and it has the model as
soon as the other shard is through with it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from threading import Lock
from types import MappingProxyType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.config import ImageSettings, RunConfig
from amg_pipeline.errors import (
    ConfigError,
    ImageError,
    ShardError,
    StorageError,
    TransientStorageError,
)
from amg_pipeline.records import (
    DecodedImage,
    ImageRef,
    ImageResult,
    ImageStatus,
    MaskRecord,
    Shard,
    ShardReport,
    is_settled,
)
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.mask_table import TableMetadata, decode_table, encode_table
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan
from amg_pipeline.telemetry import StageTimer, log_event

_LOGGER = logging.getLogger(__name__)


class FoundMasks(Protocol):
    """The masks of an image, as far as the model is needed for them."""

    def to_records(self) -> tuple[MaskRecord, ...]:
        """Do the rest; may run in another thread, beside the model's work on the next image."""
        ...


#: From uint8 `(height, width, 3)` RGB to the masks of an image.
MaskGenerator = Callable[[NDArray[np.uint8]], FoundMasks]
OnImage = Callable[[ImageResult], None]
#: As `storage.images.load_image`.
ImageLoader = Callable[..., DecodedImage]

#: How the backends say that a device's memory is full, by class name and by text. None of these
#: errors is a MemoryError, and no backend is imported here.
_MEMORY_CLASSES = frozenset({"ResourceExhaustedError", "OutOfMemoryError"})
_MEMORY_CODE = "RESOURCE_EXHAUSTED"
#: How the backends say that a device is broken until its process ends: every later call fails too.
_BROKEN_DEVICE = (
    "CUDA_ERROR",
    "cudaError",
    "CUDA error",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "device-side assert",
    "uncorrectable ECC",
)
#: Images that the model is through with and that have no row yet; bounds the masks in memory.
_MOST_UNFINISHED = 2
#: The same on every machine: backends' own messages name devices and sizes of free memory.
_MEMORY_MESSAGE = "The image needs more memory than the worker has"


@dataclass(frozen=True, slots=True)
class _Loaded:
    """An image whose pixels are there, or the row that it has without them."""

    ref: ImageRef
    image: DecodedImage | None = None
    row: ImageResult | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """An image that the model is through with; its pixels are let go."""

    ref: ImageRef
    height: int
    width: int
    masks: FoundMasks


class ShardRunner:
    """Runs shards of one plan with one mask generator.

    Args:
        directory: The output.
        plan: The output's plan.
        metadata: What each table's footer says.
        generate: Finds the masks of an image.
        images: How images are read.
        decode_threads: Threads that fetch and decode ahead of `generate`.
        load: Reads one image; `load_image` by default.
    """

    def __init__(
        self,
        *,
        directory: RunDirectory,
        plan: StoredPlan,
        metadata: TableMetadata,
        generate: MaskGenerator,
        images: ImageSettings,
        decode_threads: int = 2,
        load: ImageLoader | None = None,
    ) -> None:
        self._directory = directory
        self._plan = plan
        self._metadata = metadata
        self._generate = generate
        self._images = images
        self._decode_threads = decode_threads
        self._load_image = load or load_image
        # One shard has the model at a time.
        self._model_turn = Lock()

    def run(
        self,
        shard: Shard,
        *,
        known: Mapping[int, ImageResult] = MappingProxyType({}),
        is_last_attempt: bool = False,
        on_image: OnImage | None = None,
    ) -> ShardReport:
        """Run a shard and commit it.

        Args:
            shard: What to do.
            known: Rows that are settled already, by their number in the shard; these images are
                not touched. Rows that a committed shard keeps come from the shard itself.
            is_last_attempt: Whether faults that may pass become rows rather than fail the attempt.
            on_image: Called with each image's result, in row order, from another thread.

        Raises:
            ShardError: If the attempt failed; nothing was committed.
            StorageError: If the commit failed.
        """
        timer = StageTimer()
        started = time.perf_counter()
        results: list[ImageResult] = []
        kept = self._read_kept(shard)
        images = self._load_ahead(shard, {**known, **kept}, timer, is_last_attempt)

        def finish(found: _Found | ImageResult) -> None:
            result = self._finish(found, timer, is_last_attempt)
            results.append(result)
            if on_image is not None:
                on_image(result)

        with _one_by_one() as submit, closing(images), ExitStack() as model:
            has_model = False
            for loaded in images:
                if not has_model:
                    # Images load while another shard has the model.
                    has_model = model.enter_context(self._model_turn)
                    started = time.perf_counter()
                found = self._find(loaded, timer, is_last_attempt)
                # Its pixels would otherwise stay while the next image is waited for.
                del loaded
                submit(partial(finish, found))
        _refuse_broken_model(results)
        with timer.stage("encode_table"):
            data = encode_table(results, self._metadata)
        with timer.stage("commit"):
            self._directory.commit_shard(self._plan, shard.shard_id, data)
        report = _report(
            shard.shard_id, results, len(data), timer, elapsed=time.perf_counter() - started
        )
        report = replace(report, kept=len(kept))
        self._directory.write_stats(shard.shard_id, report_to_stats(report))
        return report

    def run_image(self, ref: ImageRef) -> ImageResult:
        """Give one image's row, and commit nothing; nothing else is loaded meanwhile.

        Raises:
            ShardError: If the image could not be fetched, or needs more memory than there is.
        """
        timer = StageTimer()
        with self._model_turn:
            loaded = self._load(ref, timer, is_last_attempt=False)
            found = self._find(loaded, timer, is_last_attempt=False)
            return self._finish(found, timer, is_last_attempt=False)

    def _read_kept(self, shard: Shard) -> dict[int, ImageResult]:
        """Read the rows of a committed shard that are not to be done again."""
        if shard.redo is None:
            return {}
        try:
            data = self._directory.read_shard(self._plan, shard.shard_id)
        except FileNotFoundError:
            # Somebody removed it, to have all of it done.
            return {}
        rows = decode_table(data)
        if [row.ref.image_id for row in rows] != [ref.image_id for ref in shard.images]:
            raise StorageError(
                f"Shard {shard.shard_id} must hold the images that the plan says. Received: "
                "others. Remove its object to do all of it again"
            )
        return {number: row for number, row in enumerate(rows) if number not in shard.redo}

    def _load_ahead(
        self,
        shard: Shard,
        known: Mapping[int, ImageResult],
        timer: StageTimer,
        is_last_attempt: bool,
    ) -> Generator[_Loaded, None, None]:
        """Load images in order, at most one per thread beyond the one in use."""
        waiting: deque[Future[_Loaded]] = deque()
        with ThreadPoolExecutor(self._decode_threads, thread_name_prefix="decode") as pool:
            try:
                for index, ref in enumerate(shard.images):
                    if index in known:
                        waiting.append(_finished(_Loaded(ref, row=known[index])))
                    else:
                        waiting.append(pool.submit(self._load, ref, timer, is_last_attempt))
                    if len(waiting) > self._decode_threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _load(self, ref: ImageRef, timer: StageTimer, is_last_attempt: bool) -> _Loaded:
        try:
            with timer.stage("load"):
                image = self._load_image(
                    ref,
                    exif_orientation=self._images.exif_orientation,
                    max_pixels=self._images.max_pixels,
                )
        except ImageError as error:
            return _Loaded(ref, row=_failure(ref, error.status, error))
        except ConfigError as error:
            # A manifest may name a scheme that this machine cannot read. The error's own text holds
            # the address.
            failure = _failure(ref, "fetch_error", error)
            message = "The address's scheme must be one that can be read. Received: another one"
            return _Loaded(ref, row=replace(failure, error_message=message))
        except TransientStorageError as error:
            if is_last_attempt:
                return _Loaded(ref, row=_failure(ref, "fetch_error", error))
            raise ShardError(f"Image {ref.image_id!r} could not be fetched: {error}") from error
        except MemoryError as error:
            return _Loaded(ref, row=_out_of_memory(ref, error, is_last_attempt))
        return _Loaded(ref, image=image)

    def _find(
        self, loaded: _Loaded, timer: StageTimer, is_last_attempt: bool
    ) -> _Found | ImageResult:
        """Do what needs the model; an image that it fails on, or that is settled, has its row."""
        if loaded.image is None:
            if loaded.row is None:
                raise ShardError(f"Image {loaded.ref.image_id!r} was neither loaded nor refused")
            return loaded.row
        pixels = loaded.image.pixels
        height, width = pixels.shape[:2]
        try:
            with timer.stage("generate"):
                return _Found(loaded.ref, height, width, self._generate(pixels))
        except Exception as error:
            row = _row_of_fault(loaded.ref, error, is_last_attempt, size=(height, width))
            if row is None:
                raise
            return row

    def _finish(
        self, found: _Found | ImageResult, timer: StageTimer, is_last_attempt: bool
    ) -> ImageResult:
        """Do what needs no model."""
        if isinstance(found, ImageResult):
            return found
        try:
            with timer.stage("encode_masks"):
                masks = found.masks.to_records()
        except Exception as error:
            size = (found.height, found.width)
            row = _row_of_fault(found.ref, error, is_last_attempt, size=size)
            if row is None:
                raise
            return row
        return ImageResult(found.ref, "ok", width=found.width, height=found.height, masks=masks)


@contextmanager
def _one_by_one() -> Iterator[Callable[[Callable[[], None]], None]]:
    """Run jobs in a thread, in order, a few waiting at most; none after one that failed.

    Yields:
        What takes a job. It and the end of the block raise what a job has raised.
    """
    unfinished: deque[Future[None]] = deque()

    def run(job: Callable[[], None], before: Future[None] | None) -> None:
        if before is not None:
            before.result()
        job()

    def submit(job: Callable[[], None]) -> None:
        before = unfinished[-1] if unfinished else None
        unfinished.append(pool.submit(run, job, before))
        while unfinished and (unfinished[0].done() or len(unfinished) > _MOST_UNFINISHED):
            unfinished.popleft().result()

    with ThreadPoolExecutor(1, thread_name_prefix="finish") as pool:
        yield submit
        for future in unfinished:
            future.result()


def _finished(loaded: _Loaded) -> Future[_Loaded]:
    future: Future[_Loaded] = Future()
    future.set_result(loaded)
    return future


def report_to_stats(report: ShardReport) -> dict[str, object]:
    """Turn a report into what is stored beside the run."""
    return {
        "shard_id": report.shard_id,
        "images": dict(report.images),
        "unsettled": report.unsettled,
        "masks": report.masks,
        "bytes_written": report.bytes_written,
        "elapsed_seconds": round(report.elapsed_seconds, 4),
        "finished_at": round(time.time(), 3),
        "stage_seconds": {name: round(s, 4) for name, s in report.stage_seconds.items()},
    }


def make_mask_generator(config: RunConfig) -> MaskGenerator:
    """Load the model of a run into this process and give its mask generator.

    Imports Keras, so it must run after the process's devices are chosen.

    Args:
        config: Settings with everything resolved that is chosen when the plan is made.

    Raises:
        ConfigError: If the backend cannot be used in this process.
        WeightsError: If the weights cannot be loaded.
    """
    from amg_pipeline.sam.backend import prepare_backend

    model = config.model
    is_strict = model.precision == "strict"
    prepare_backend(
        model.backend, intra_op_threads=model.intra_op_threads or 1, exact_float32=is_strict
    )
    from amg_pipeline.amg.generator import AutomaticMaskGenerator
    from amg_pipeline.sam.model import SAM

    sam = SAM.from_variant(
        model.variant,
        weights=model.weights or "default",
        dtype="float32" if is_strict else "mixed_bfloat16",
    )
    generator = AutomaticMaskGenerator.from_settings(
        sam, config.amg, encoder_batch_size=model.encoder_batch_size
    )
    return generator.find


def _failure(ref: ImageRef, status: str, error: Exception) -> ImageResult:
    checked: ImageStatus = status  # type: ignore[assignment]
    return ImageResult(
        ref,
        checked,
        error_type=type(error).__name__,
        error_message=str(error)[:500],
    )


def is_device_fault(error: BaseException) -> bool:
    """Tell whether an error, or what caused it, leaves the accelerator unusable to the process."""
    if _is_memory_fault(error):
        return False
    causes = [error, *([error.__cause__] if error.__cause__ else [])]
    return any(sign in str(cause) for cause in causes for sign in _BROKEN_DEVICE)


def _is_memory_fault(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in _MEMORY_CLASSES
        or _MEMORY_CODE in str(error)
    )


def _row_of_fault(
    ref: ImageRef, error: Exception, is_last_attempt: bool, *, size: tuple[int, int]
) -> ImageResult | None:
    """Give the row of an image whose masks could not be made; None if the attempt has failed."""
    if _is_memory_fault(error):
        return _out_of_memory(ref, error, is_last_attempt, size=size)
    if not is_last_attempt or is_device_fault(error):
        return None
    # One image that the model fails on must not cost the others of its shard their rows.
    return _model_failure(ref, error, size=size)


def _out_of_memory(
    ref: ImageRef,
    error: Exception,
    is_last_attempt: bool,
    *,
    size: tuple[int, int] | None = None,
) -> ImageResult:
    """Give the row of an image that does not fit into memory, unless another try is left."""
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


def _refuse_broken_model(results: list[ImageResult]) -> None:
    """Fail the attempt if the model came through no image: it is not the images' fault then."""
    statuses = {result.status for result in results}
    if "crash" in statuses and "ok" not in statuses:
        raise ShardError("The model must come through some image of a shard. Received: none of it")


def _report(
    shard_id: int,
    results: list[ImageResult],
    bytes_written: int,
    timer: StageTimer,
    *,
    elapsed: float,
) -> ShardReport:
    return ShardReport(
        shard_id=shard_id,
        images=dict(Counter(result.status for result in results)),
        unsettled=sum(not is_settled(r.status, r.error_type) for r in results),
        masks=sum(len(result.masks) for result in results),
        bytes_written=bytes_written,
        stage_seconds=timer.seconds,
        elapsed_seconds=elapsed,
    )
