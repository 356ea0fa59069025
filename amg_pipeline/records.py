"""What travels between the parts: frozen records, complete from the moment they exist.

Frames: the *image frame* is the decoded image's pixels, the *crop frame* a crop's own pixels.
Boxes carry their layout in the name: `xyxy` are inclusive pixel corners as in the reference,
`xywh` are left, top, width, height.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ImageStatus = Literal[
    "ok", "decode_error", "fetch_error", "too_large", "out_of_memory", "crash", "timeout"
]
#: Statuses that are facts of the image itself: committed at once, and no reason to fail a run.
CONTENT_STATUSES: frozenset[str] = frozenset({"ok", "decode_error", "too_large"})


def is_settled(status: str, error_type: str | None) -> bool:
    """Tell whether a row states a fact of its image, so that no retry could change it.

    An image that does not exist has the status `fetch_error` like any other failed read, but
    its absence is a fact; it is told apart by its `error_type`.
    """
    return status in CONTENT_STATUSES or error_type == "ImageNotFoundError"


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where one image of the input lies.

    Attributes:
        image_id: Unique name within the run; relative POSIX path, or a manifest's own id.
        uri: What the storage layer opens.
        size_bytes: Size of the object where the listing told it.
        etag: The store's version tag where the listing told it. A tar or Parquet file must still
            have it, because what is read of it lies at fixed places; of a file of its own, it is a
            record only, and what lies there when it is read counts.
    """

    image_id: str
    uri: str
    size_bytes: int | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """The images whose rows are committed together, in row order.

    Attributes:
        shard_id: Its number.
        images: One per row.
        redo: Of a committed shard, the rows to do again while the others are kept; None does all.
    """

    shard_id: int
    images: tuple[ImageRef, ...]
    redo: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels of one image, uint8 `(height, width, 3)` RGB, upright."""

    ref: ImageRef
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CropBox:
    """One crop of an image: corners in the image frame, right and bottom exclusive.

    `layer` 0 is the whole image.
    """

    x0: int
    y0: int
    x1: int
    y1: int
    layer: int

    @property
    def height(self) -> int:
        """Rows of the crop."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Columns of the crop."""
        return self.x1 - self.x0

    @property
    def xywh(self) -> tuple[int, int, int, int]:
        """Left, top, width, height in the image frame."""
        return (self.x0, self.y0, self.width, self.height)


@dataclass(frozen=True, slots=True)
class MaskBatch:
    """Masks of one crop, measured at the crop's full resolution.

    All arrays share their first axis `M`; frames are the crop's.

    Attributes:
        stable_pixels: Pixels above the mask threshold plus the stability offset, int64 `(M,)`.
        possible_pixels: Pixels above the threshold minus the offset, int64 `(M,)`.
        boxes_xyxy: Inclusive corners of the pixels above the threshold, int64 `(M, 4)`; all zero
            for an empty mask.
        packed: The masks column by column, eight rows a byte, most significant bit first:
            uint8 `(M, width, ceil(height / 8))`; unused bits are zero.
        height: Rows of a mask.
        width: Columns of a mask.
    """

    stable_pixels: NDArray[np.int64]
    possible_pixels: NDArray[np.int64]
    boxes_xyxy: NDArray[np.int64]
    packed: NDArray[np.uint8]
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Rle:
    """A binary mask as column-major run lengths, the first run being zeros (COCO).

    Attributes:
        height: Rows of the mask.
        width: Columns of the mask.
        counts: Run lengths, int64 `(runs,)`; they sum to `height * width`.
    """

    height: int
    width: int
    counts: NDArray[np.int64]

    @property
    def area(self) -> int:
        """Number of pixels that are set."""
        return int(self.counts[1::2].sum())


@dataclass(frozen=True, slots=True)
class MaskRecord:
    """One final mask of an image.

    Attributes:
        rle: The mask in the image frame.
        box_xyxy: Inclusive pixel corners in the image frame; all zero for an empty mask.
        predicted_iou: The model's own estimate of the mask's IoU, float32 value.
        stability_score: IoU of the mask thresholded `stability_score_offset` above and below
            the mask threshold, float32 value.
        point_coords: The prompt, XY in the image frame, float64, not rounded.
        crop_box: The crop that the mask was found in.
    """

    rle: Rle
    box_xyxy: tuple[int, int, int, int]
    predicted_iou: float
    stability_score: float
    point_coords: tuple[float, float]
    crop_box: CropBox


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The outcome of one image: its row in the mask table.

    `width` and `height` are None where they are unknown; `masks` is empty unless `status` is
    `ok`. Messages hold no host, time, attempt number or address, so that rows are repeatable.
    """

    ref: ImageRef
    status: ImageStatus
    width: int | None = None
    height: int | None = None
    masks: tuple[MaskRecord, ...] = ()
    error_type: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class ShardReport:
    """What a committed shard did.

    Attributes:
        shard_id: The shard's number.
        images: Number of rows by status.
        unsettled: Number of rows that a retry could change; any makes the run end with code 3.
        masks: Number of masks in all rows.
        bytes_written: Size of the committed object.
        stage_seconds: Wall-clock seconds spent in each stage.
        elapsed_seconds: Wall-clock seconds from when the shard had the model to its commit.
        kept: Number of rows that an earlier commit had, and that were not done again.
        slowest: The images that took longest, with their seconds in all stages.
    """

    shard_id: int
    images: Mapping[str, int]
    unsettled: int
    masks: int
    bytes_written: int
    stage_seconds: Mapping[str, float]
    elapsed_seconds: float
    kept: int = 0
    slowest: tuple[tuple[str, float], ...] = ()
