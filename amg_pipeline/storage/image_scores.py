"""The scores of a run's masks, one image at a time, without the masks themselves.

Run lengths are most of a shard's bytes. What statistics need is a small part of the rest, so that
ten million masks are read in seconds; the masks of a few images are then read from their places.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.image_masks import IMAGE_COLUMNS, ImageMasks, readable, split_batch

#: Shards that are read ahead, which bounds memory.
_SHARDS_AHEAD = 3
#: Rows of a piece, so that a shard of any size is read in bounded memory.
_BATCH_ROWS = 4096

_HEADS = ["image_id", "status", "error_type", "error_message", "width", "height"]
_SCORES = ["area", "predicted_iou", "stability_score"]
_COLUMNS = [*_HEADS, *(f"masks.list.element.{name}" for name in _SCORES)]


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row lies: the number of its shard among those that are there, and its own in it."""

    shard: int
    row: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageScores:
    """What is known of one image and of `N` masks of it, without their pixels.

    Attributes:
        image_id: The image's name within the run.
        place: Where its row lies, for `read_images_at`.
        status: What became of it; an image that is not `ok` has no masks.
        error_type: Name of the error of an image that failed.
        error_message: What it says.
        width: Columns in pixels; 0 where unknown.
        height: Rows in pixels; 0 where unknown.
        area: Pixels, int64 `(N,)`.
        predicted_iou: Float32 `(N,)`.
        stability_score: Float32 `(N,)`; NaN where an empty mask has none.
    """

    image_id: str
    place: RowPlace
    status: str
    error_type: str | None
    error_message: str | None
    width: int
    height: int
    area: NDArray[np.int64]
    predicted_iou: NDArray[np.float32]
    stability_score: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.area)


def read_image_scores(dataset: pyarrow.dataset.Dataset) -> Iterator[ImageScores]:
    """Read the scores of all images of a run in order, in memory that does not grow with the run.

    Args:
        dataset: As `load_masks` returns it.

    Raises:
        StorageError: If a shard cannot be read.
    """
    waiting: deque[Future[list[pa.RecordBatch]]] = deque()
    numbers = iter(range(len(dataset.files)))
    done = 0
    with ThreadPoolExecutor(_SHARDS_AHEAD, thread_name_prefix="scores") as pool:
        try:
            while True:
                while len(waiting) <= _SHARDS_AHEAD and (number := next(numbers, None)) is not None:
                    waiting.append(pool.submit(_read_shard, dataset, number))
                if not waiting:
                    return
                row = 0
                for batch in waiting.popleft().result():
                    yield from _split(batch, shard=done, first_row=row)
                    row += batch.num_rows
                done += 1
        finally:
            pool.shutdown(cancel_futures=True)


def read_images_at(
    dataset: pyarrow.dataset.Dataset, places: Sequence[RowPlace]
) -> Iterator[tuple[RowPlace, ImageMasks]]:
    """Read some images with their masks; of a shard, only the row groups that hold them.

    Args:
        dataset: The one that the places were read from.
        places: Where the images lie; each is given once, in order of the shards and rows.

    Raises:
        StorageError: If a shard cannot be read, or has fewer rows by now.
    """
    by_shard: dict[int, list[int]] = {}
    for place in sorted(set(places), key=lambda place: (place.shard, place.row)):
        by_shard.setdefault(place.shard, []).append(place.row)
    for number, rows in by_shard.items():
        path = dataset.files[number]
        with readable(), dataset.filesystem.open_input_file(path) as file:
            shard = pq.ParquetFile(file, pre_buffer=True)
            images = list(zip(rows, _read_rows(shard, rows), strict=True))
        for row, image in images:
            yield RowPlace(number, row), image


def find_images(dataset: pyarrow.dataset.Dataset) -> Iterator[tuple[RowPlace, str]]:
    """Read the names of all images in order, with their places, and nothing else.

    Raises:
        StorageError: If a shard cannot be read.
    """
    for number, path in enumerate(dataset.files):
        with readable(), dataset.filesystem.open_input_file(path) as file:
            names = pq.read_table(file, columns=["image_id"]).column(0).to_pylist()
        yield from ((RowPlace(number, row), name) for row, name in enumerate(names))


def _read_shard(dataset: pyarrow.dataset.Dataset, number: int) -> list[pa.RecordBatch]:
    with readable(), dataset.filesystem.open_input_file(dataset.files[number]) as file:
        is_local = isinstance(dataset.filesystem, pyarrow.fs.LocalFileSystem)
        # Of a store, one request for all bytes costs less than one for each column.
        source = file if is_local else pa.BufferReader(file.read_buffer())
        shard = pq.ParquetFile(source)
        return list(shard.iter_batches(_BATCH_ROWS, columns=_COLUMNS, use_threads=False))


def _split(batch: pa.RecordBatch, *, shard: int, first_row: int) -> Iterator[ImageScores]:
    heads = [batch.column(name).to_pylist() for name in _HEADS]
    lists = batch.column("masks")
    ends = lists.offsets.to_numpy() - lists.offsets[0].as_py()
    structs = lists.flatten()
    columns = [structs.field(name).to_numpy() for name in _SCORES]
    for row, (image_id, status, kind, message, width, height) in enumerate(
        zip(*heads, strict=True)
    ):
        area, predicted_iou, stability = (column[ends[row] : ends[row + 1]] for column in columns)
        yield ImageScores(
            image_id=image_id,
            place=RowPlace(shard, first_row + row),
            status=status,
            error_type=kind,
            error_message=message,
            width=width or 0,
            height=height or 0,
            area=area,
            predicted_iou=predicted_iou,
            stability_score=stability,
        )


def _read_rows(shard: Any, rows: Sequence[int]) -> Iterator[ImageMasks]:
    """Read rows of an open file, which are in order, a row group at a time."""
    sizes = [shard.metadata.row_group(i).num_rows for i in range(shard.num_row_groups)]
    ends = np.cumsum(sizes, dtype=np.int64)
    current, images = -1, []
    for row in rows:
        group = int(np.searchsorted(ends, row, side="right"))
        if group >= len(sizes):
            raise StorageError(
                f"A shard must have the rows that it had a moment ago. Received: one of "
                f"{sum(sizes)} rows, without row {row}. Give the same command again"
            )
        if group != current:
            table = shard.read_row_group(group, columns=IMAGE_COLUMNS)
            [batch] = table.combine_chunks().to_batches()
            current, images = group, list(split_batch(batch))
        yield images[row - int(ends[group] - sizes[group])]
