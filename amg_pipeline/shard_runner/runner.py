"""One shard from start to commit, without Ray: load, generate, make the table, put it.

Every runner, local or distributed, runs shards through `ShardRunner`, so that there is one place
where an image's fate is decided. An image that is damaged gets its row at once. A fault that may
pass (throttling, memory) fails the attempt, unless the caller says that it is the last one.

The model waits for nothing but itself: the next images are fetched and decoded while it works, and
the masks of the last ones are cleaned and encoded. A runner may be given a second shard from
another thread while it works on one: its first images are loaded meanwhile, and it has the model as
soon as the other shard is through with it. The model's turns go by the order of `run`'s calls.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Set
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import (
    ConfigError,
    ImageError,
    ShardError,
    StorageAccessError,
    TransientStorageError,
)
from amg_pipeline.records import (
    DecodedImage,
    ImageRef,
    ImageResult,
    Shard,
    ShardReport,
    is_settled,
)
from amg_pipeline.shard_runner.beside_model import Loaded, load_ahead, one_by_one
from amg_pipeline.shard_runner.failed_images import (
    failed_image,
    image_out_of_memory,
    image_without_masks,
)
from amg_pipeline.shard_runner.mask_generator import FoundMasks, MaskGenerator
from amg_pipeline.shard_runner.refusals import Refusals
from amg_pipeline.shard_runner.stored_rows import StoredRows
from amg_pipeline.shard_runner.turns import Turns
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.mask_table import TableMetadata, encode_table
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan
from amg_pipeline.telemetry import StageTimer

#: Images of a shard whose seconds are recorded.
_MOST_SLOW = 20

OnImage = Callable[[ImageResult], None]
#: As `storage.images.load_image`.
ImageLoader = Callable[..., DecodedImage]


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
        self._turns = Turns()
        self._refusals = Refusals()
        self._stored_rows = StoredRows(directory, plan)

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
            StorageAccessError: If a store refuses all images so far, or the commit.
            StorageError: If the commit failed.
        """
        timer = StageTimer()
        started = time.perf_counter()
        results: list[ImageResult] = []
        load = partial(self._load, timer=timer, is_last_attempt=is_last_attempt)

        def finish(found: _Found | ImageResult) -> None:
            result = self._finish(found, timer, is_last_attempt)
            results.append(result)
            if on_image is not None:
                on_image(result)

        with self._turns.queue() as turn:
            kept = self._stored_rows.kept(shard)
            images = load_ahead(shard.images, {**known, **kept}, load, threads=self._decode_threads)
            with one_by_one() as submit, closing(images):
                has_model = False
                for loaded in images:
                    if not has_model:
                        # Images load while another shard has the model.
                        turn.wait()
                        has_model, started = True, time.perf_counter()
                    found = self._find(loaded, timer, is_last_attempt)
                    # Its pixels would otherwise stay while the next image is waited for.
                    del loaded
                    submit(partial(finish, found))
                turn.leave()
        self._refusals.check()
        _refuse_broken_model(results, untouched=known.keys() | kept.keys())
        results = self._stored_rows.with_facts(shard, results)
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
        with self._turns.queue() as turn:
            turn.wait()
            loaded = self._load(ref, timer, is_last_attempt=False)
            self._refusals.check()
            found = self._find(loaded, timer, is_last_attempt=False)
            return self._finish(found, timer, is_last_attempt=False)

    def _load(self, ref: ImageRef, timer: StageTimer, is_last_attempt: bool) -> Loaded:
        try:
            with timer.stage("load", subject=ref.image_id):
                loaded = self._load_image(
                    ref,
                    exif_orientation=self._images.exif_orientation,
                    max_pixels=self._images.max_pixels,
                )
        except ImageError as error:
            row = failed_image(ref, error.status, error)
            if is_settled(row.status, row.error_type):
                self._refusals.add_answer(ref)
            return row
        except StorageAccessError as error:
            self._refusals.add(ref, error)
            return failed_image(ref, "fetch_error", error)
        except ConfigError as error:
            # A manifest may name a scheme that this machine cannot read. The error's own text holds
            # the address.
            failure = failed_image(ref, "fetch_error", error)
            message = "The address's scheme must be one that can be read. Received: another one"
            return replace(failure, error_message=message)
        except TransientStorageError as error:
            if is_last_attempt:
                return failed_image(ref, "fetch_error", error)
            raise ShardError(f"Image {ref.image_id!r} could not be fetched: {error}") from error
        except MemoryError as error:
            return image_out_of_memory(ref, error, is_last_attempt)
        self._refusals.add_answer(ref)
        return loaded

    def _find(
        self, loaded: Loaded, timer: StageTimer, is_last_attempt: bool
    ) -> _Found | ImageResult:
        """Do what needs the model; an image that it fails on, or that is settled, has its row."""
        if isinstance(loaded, ImageResult):
            return loaded
        pixels = loaded.pixels
        height, width = pixels.shape[:2]
        try:
            with timer.stage("generate", subject=loaded.ref.image_id):
                return _Found(loaded.ref, height, width, self._generate(pixels))
        except Exception as error:
            row = image_without_masks(loaded.ref, error, is_last_attempt, size=(height, width))
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
            with timer.stage("encode_masks", subject=found.ref.image_id):
                masks = found.masks.to_records()
        except Exception as error:
            size = (found.height, found.width)
            row = image_without_masks(found.ref, error, is_last_attempt, size=size)
            if row is None:
                raise
            return row
        return ImageResult(found.ref, "ok", width=found.width, height=found.height, masks=masks)


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
        "slowest_images": [[image_id, round(s, 4)] for image_id, s in report.slowest],
    }


def _refuse_broken_model(results: list[ImageResult], *, untouched: Set[int]) -> None:
    """Fail the attempt if the model failed and came through no image: it is no image's fault then.

    Rows that were known before say nothing of the model: an image may be condemned for what it did
    to a worker, and have no neighbour.
    """
    has_failed = any(r.status == "crash" for n, r in enumerate(results) if n not in untouched)
    if has_failed and all(result.status != "ok" for result in results):
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
        slowest=timer.slowest(_MOST_SLOW),
    )
