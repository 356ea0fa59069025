"""The rows of a run as columns of masks, one image at a time; no mask is decoded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
from numpy.typing import NDArray

from amg_pipeline.errors import StorageError

#: Rows that are decompressed at a time.
_BATCH_ROWS = 64
#: Shards whose bytes are read ahead.
_SHARDS_AHEAD = 2

#: What `split_batch` needs of a row.
IMAGE_COLUMNS = ["image_id", "uri", "status", "width", "height", "masks"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskReview:
    """What people decided about a mask.

    Attributes:
        verdict: Rejected where anybody did; merged where it is part of another mask since; None
            where nobody decided.
        is_disputed: Whether one accepted and another rejected it.
        tags: Words that were given to it.
        reviewers: Who said something.
        merged_from: Of a union that a person made, which masks of the row it is of; else empty.
    """

    verdict: Literal["accepted", "rejected", "merged"] | None = None
    is_disputed: bool = False
    tags: tuple[str, ...] = ()
    reviewers: tuple[str, ...] = ()
    merged_from: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMasks:
    """One image and `N` masks of it, as its row has them.

    Attributes:
        image_id: The image's name within the run.
        uri: Where it was read.
        status: What became of it; an image that is not `ok` has no masks.
        width: Columns in pixels; 0 where unknown.
        height: Rows in pixels; 0 where unknown.
        counts: COCO's compressed run lengths of size `[height, width]`.
        bbox_xywh: Tight boxes in the image frame, float32 `(N, 4)`.
        area: Pixels, int64 `(N,)`.
        predicted_iou: Float32 `(N,)`.
        stability_score: Float32 `(N,)`; NaN where an empty mask has none.
        point_coords: The prompts XY in the image frame, float64 `(N, 2)`.
        crop_box_xywh: The crops that masks were found in, int32 `(N, 4)`.
        reviews: One a mask, where reviews are read along; None where they are not, or nobody
            looked at the image.
    """

    image_id: str
    uri: str
    status: str
    width: int
    height: int
    counts: Sequence[str]
    bbox_xywh: NDArray[np.float32]
    area: NDArray[np.int64]
    predicted_iou: NDArray[np.float32]
    stability_score: NDArray[np.float32]
    point_coords: NDArray[np.float64]
    crop_box_xywh: NDArray[np.int32]
    reviews: tuple[MaskReview, ...] | None = None

    def __len__(self) -> int:
        return len(self.counts)

    def take(self, indices: NDArray[np.intp]) -> ImageMasks:
        """Select masks by index, in the given order."""
        return ImageMasks(
            image_id=self.image_id,
            uri=self.uri,
            status=self.status,
            width=self.width,
            height=self.height,
            counts=[self.counts[i] for i in indices],
            bbox_xywh=self.bbox_xywh[indices],
            area=self.area[indices],
            predicted_iou=self.predicted_iou[indices],
            stability_score=self.stability_score[indices],
            point_coords=self.point_coords[indices],
            crop_box_xywh=self.crop_box_xywh[indices],
            reviews=None if self.reviews is None else tuple(self.reviews[i] for i in indices),
        )


def read_image_masks(dataset: pyarrow.dataset.Dataset) -> Iterator[ImageMasks]:
    """Read all images of a run in order, in memory that does not grow with the run.

    Args:
        dataset: As `load_masks` returns it.

    Raises:
        StorageError: If a shard cannot be read.
    """
    # pyarrow's own scanner reads ahead without bound where the reader is the slower one.
    for data in _read_ahead(dataset):
        with readable():
            shard = pq.ParquetFile(pa.BufferReader(data))
        batches = shard.iter_batches(_BATCH_ROWS, columns=IMAGE_COLUMNS)
        while (batch := _next(batches)) is not None:
            yield from split_batch(batch)


def read_image_ids(dataset: pyarrow.dataset.Dataset) -> Iterator[tuple[str, str]]:
    """Read the ids and statuses of all images in order, and nothing else.

    Raises:
        StorageError: If a shard cannot be read.
    """
    for path in dataset.files:
        with readable(), dataset.filesystem.open_input_file(path) as file:
            table = pq.read_table(file, columns=["image_id", "status"])
        yield from zip(*(column.to_pylist() for column in table.columns), strict=True)


def _read_ahead(dataset: pyarrow.dataset.Dataset) -> Iterator[pa.Buffer]:
    """Read the shards' bytes in order, some of them while the one before is worked on."""

    def read(path: str) -> pa.Buffer:
        with readable(), dataset.filesystem.open_input_file(path) as file:
            return file.read_buffer()

    waiting: deque[Future[pa.Buffer]] = deque()
    with ThreadPoolExecutor(_SHARDS_AHEAD, thread_name_prefix="shards") as pool:
        try:
            for path in dataset.files:
                waiting.append(pool.submit(read, path))
                if len(waiting) > _SHARDS_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _next(batches: Iterator[pa.RecordBatch]) -> pa.RecordBatch | None:
    with readable():
        return next(batches, None)


@contextmanager
def readable() -> Iterator[None]:
    """Turn what pyarrow raises for a damaged or missing shard into a `StorageError`."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"Every shard must be a readable Parquet file. Received: {type(error).__name__}. "
            "Find the damaged one with `amg verify`"
        ) from error


def split_batch(batch: pa.RecordBatch) -> Iterator[ImageMasks]:
    """Take a batch of `IMAGE_COLUMNS` apart, image by image."""
    heads = [batch.column(name).to_pylist() for name in IMAGE_COLUMNS[:-1]]
    lists = batch.column("masks")
    # Offsets count from the start of the child array, of which `flatten` gives this batch's part.
    ends = lists.offsets.to_numpy() - lists.offsets[0].as_py()
    structs = lists.flatten()
    columns = {part.name: structs.field(part.name) for part in structs.type}
    arrays: dict[str, Any] = {
        "bbox_xywh": _matrix(columns["bbox"], 4),
        "area": columns["area"].to_numpy(),
        "predicted_iou": columns["predicted_iou"].to_numpy(),
        "stability_score": columns["stability_score"].to_numpy(),
        "point_coords": _matrix(columns["point_coords"], 2),
        "crop_box_xywh": _matrix(columns["crop_box"], 4),
    }
    counts = columns["counts"].to_numpy(zero_copy_only=False).tolist()
    for row, (image_id, uri, status, width, height) in enumerate(zip(*heads, strict=True)):
        part = slice(int(ends[row]), int(ends[row + 1]))
        yield ImageMasks(
            image_id=image_id,
            uri=uri,
            status=status,
            width=width or 0,
            height=height or 0,
            counts=counts[part],
            **{name: array[part] for name, array in arrays.items()},
        )


def _matrix(column: pa.FixedSizeListArray, width: int) -> NDArray[Any]:
    values: NDArray[Any] = column.flatten().to_numpy().reshape(-1, width)
    return values
