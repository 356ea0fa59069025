"""COCO's compressed run-length encoding: a mask as a short text.

Writing, areas and boxes are pycocotools'. Reading back to run lengths, which it does not offer,
follows the format: differences to the run before last, in groups of 5 bits, lowest first, bit 6
for "more follows", as characters from `0` on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from amg_pipeline.records import Rle

_FIRST_CHARACTER = 48
_GROUP_BITS = 5
_MORE = 0x20
_NEGATIVE = 0x10
_GROUP = 0x1F
#: 7 groups hold any difference of two 32-bit run lengths.
_MOST_GROUPS = 7


def compress_rle(rle: Rle) -> str:
    """Write a mask as COCO's compressed counts."""
    plain = {"size": [rle.height, rle.width], "counts": rle.counts.tolist()}
    counts = coco.frPyObjects(plain, rle.height, rle.width)["counts"]
    return str(counts, "ascii")


def parse_rle(counts: str, *, height: int, width: int) -> Rle:
    """Read COCO's compressed counts back to run lengths.

    Raises:
        ValueError: If the text is malformed or its runs do not cover the image.
    """
    runs = _parse_counts(counts)
    if (runs < 0).any() or int(runs.sum()) != height * width:
        raise ValueError(
            f"an RLE must have runs of zero or more pixels that sum to {height * width}; "
            f"received a sum of {int(runs.sum())}"
        )
    return Rle(height, width, runs)


def tight_boxes_xywh(counts: list[str], *, height: int, width: int) -> NDArray[np.float32]:
    """Measure the boxes of masks of one image, as pycocotools gives them.

    Returns:
        float32 `(masks, 4)` XYWH in the image frame; all zero for an empty mask.
    """
    if not counts:
        return np.zeros((0, 4), dtype=np.float32)
    boxes = coco.toBbox([{"size": [height, width], "counts": text.encode()} for text in counts])
    return np.asarray(boxes, dtype=np.float32).reshape(-1, 4)


def unite_masks(counts: Sequence[str], *, height: int, width: int) -> tuple[str, int]:
    """Unite masks of one image.

    Args:
        counts: Compressed counts of one mask or more, which `parse_rle` accepts.
        height: Rows of all.
        width: Columns of all.

    Returns:
        The union's compressed counts, and its pixels.
    """
    rles = [{"size": [height, width], "counts": text.encode()} for text in counts]
    union = coco.merge(rles)
    return str(union["counts"], "ascii"), int(coco.area(union))


def _parse_counts(counts: str) -> NDArray[np.int64]:
    codes = np.frombuffer(counts.encode(), dtype=np.uint8).astype(np.int64) - _FIRST_CHARACTER
    if codes.size == 0:
        return np.zeros(0, dtype=np.int64)
    if (codes < 0).any() or (codes >= 2 * _MORE).any() or codes[-1] & _MORE:
        raise ValueError("an RLE must be groups of characters from '0' to 'o', the last one closed")
    ends = np.flatnonzero((codes & _MORE) == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if int((ends - starts).max()) >= _MOST_GROUPS:
        raise ValueError(f"a run of an RLE must have at most {_MOST_GROUPS} characters")
    position = np.arange(codes.size) - np.repeat(starts, ends - starts + 1)
    values = np.add.reduceat((codes & _GROUP) << (_GROUP_BITS * position), starts)
    negative = (codes[ends] & _NEGATIVE) != 0
    values = values - (negative.astype(np.int64) << (_GROUP_BITS * (ends - starts + 1)))
    # From the fourth run on, each is written as the difference to the run before last.
    runs: NDArray[np.int64] = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    return runs
