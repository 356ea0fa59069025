"""Run-length encoding of binary masks, and COCO's two notations of it.

COCO's run lengths go down the columns, column after column, and the first run is zeros. Its
compressed notation is a string of printable characters, its uncompressed one a list of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from amg_pipeline.amg.packed_masks import PackedMask, pack_mask
from amg_pipeline.errors import StorageError
from amg_pipeline.records import Rle

# A character of the compressed notation carries 5 bits and says whether the number goes on.
_FIRST_CHARACTER = 48
_VALUE_BITS = 5
_VALUE_MASK = 0x1F
_SIGN_BIT = 0x10
_CONTINUES = 0x20
# Longer numbers than this exceed what a run of an image can be, and 64-bit shifts too.
_MAX_CHARACTERS = 12


def encode_packed(mask: PackedMask, *, height: int, width: int) -> Rle:
    """Encode a packed mask; the work is proportional to its stored part.

    Args:
        mask: The mask, no pixel set outside of `(height, width)`.
        height: Rows of the frame that the mask lies in.
        width: Columns of that frame.
    """
    starts, ends = _column_runs(mask, height=height)
    # A run that reaches the bottom goes on if the next column begins with one.
    joined = starts[1:] == ends[:-1]
    starts = starts[np.concatenate([[True], ~joined])] if len(starts) else starts
    ends = ends[np.concatenate([~joined, [True]])] if len(ends) else ends
    changes = np.stack([starts, ends], axis=1).ravel()
    total = height * width
    if len(changes) and changes[-1] == total:
        changes = changes[:-1]
    return Rle(height, width, np.diff(changes, prepend=0, append=total))


def _column_runs(mask: PackedMask, *, height: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where runs of set pixels begin and end, in pixels of the column-major frame."""
    num_columns, num_bytes = mask.columns.shape
    # An empty byte below each column ends its last run, and keeps columns apart.
    stored = np.zeros((num_columns, num_bytes + 1), np.uint8)
    stored[:, :-1] = mask.columns
    flat = stored.ravel()
    above = flat >> 1
    above[1:] |= flat[:-1] << 7
    # A bit is set where a pixel differs from the one above it. Few bytes have any.
    changed = flat ^ above
    where = np.flatnonzero(changed)
    byte, bit = np.nonzero(np.unpackbits(changed[where, np.newaxis], axis=1))
    column, row = np.divmod(where[byte].astype(np.int64) * 8 + bit, (num_bytes + 1) * 8)
    positions = (column + mask.left) * height + row + mask.top
    return positions[0::2], positions[1::2]


def encode_mask(mask: NDArray[np.bool_]) -> Rle:
    """Encode a bool mask `(height, width)`."""
    height, width = mask.shape
    return encode_packed(pack_mask(mask), height=height, width=width)


def decode_mask(rle: Rle) -> NDArray[np.bool_]:
    """Decode to a bool mask `(height, width)`, laid out column by column in memory."""
    is_set = np.arange(len(rle.counts)) % 2 == 1
    return np.repeat(is_set, rle.counts).reshape(rle.width, rle.height).T


def decode_window(rle: Rle, window_xyxy: tuple[int, int, int, int]) -> NDArray[np.bool_]:
    """Decode a rectangle of a mask; the work is proportional to its columns.

    Args:
        rle: The mask.
        window_xyxy: Corners in the mask's frame, right and bottom exclusive.

    Returns:
        Bool `(bottom - top, right - left)`.
    """
    left, top, right, bottom = window_xyxy
    ends: NDArray[np.int64] = np.cumsum(rle.counts).clip(left * rle.height, right * rle.height)
    inside = ends - np.concatenate([[left * rle.height], ends[:-1]])
    is_set = np.arange(len(rle.counts)) % 2 == 1
    columns = np.repeat(is_set, inside).reshape(right - left, rle.height)
    return columns[:, top:bottom].T


def rle_to_uncompressed(rle: Rle) -> dict[str, list[int]]:
    """Write COCO's uncompressed notation: `size` (height, width) and `counts`, both lists."""
    return {"size": [rle.height, rle.width], "counts": rle.counts.tolist()}


def rle_to_coco(rle: Rle) -> dict[str, Any]:
    """Write COCO's compressed notation: `size` (height, width) and `counts`, a string."""
    encoded = coco_mask.frPyObjects(rle_to_uncompressed(rle), rle.height, rle.width)
    return {"size": [rle.height, rle.width], "counts": encoded["counts"].decode("utf-8")}


def rle_from_coco(segmentation: Mapping[str, Any]) -> Rle:
    """Read either of COCO's notations.

    Args:
        segmentation: `size` (height, width), and `counts` as a string, bytes or run lengths.

    Raises:
        StorageError: If the runs are malformed or don't fill the mask's size.
    """
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    if isinstance(counts, str | bytes):
        runs = _parse_counts(counts)
    else:
        runs = np.asarray(counts, np.int64)
    total = height * width
    if (runs < 0).any() or (runs > total).any() or runs.sum() != total:
        raise StorageError(
            f"The runs of a mask of {height} rows and {width} columns must be non-negative and "
            f"sum to {total}. Received: {len(runs)} runs that sum to {runs.sum()}; the data was "
            "damaged, or made for another size"
        )
    return Rle(height, width, runs)


def _parse_counts(counts: str | bytes) -> NDArray[np.int64]:
    """Read all numbers of the compressed notation at once.

    Done here and not by pycocotools, which gives back pixels only and trusts its input.
    """
    text = counts if isinstance(counts, bytes) else counts.encode("utf-8")
    symbols = np.frombuffer(text, np.uint8).astype(np.int64) - _FIRST_CHARACTER
    is_last = (symbols & _CONTINUES) == 0
    lasts = np.flatnonzero(is_last)
    firsts = np.concatenate([[0], lasts + 1])[:-1]
    lengths = lasts - firsts + 1
    is_valid = ((symbols >= 0) & (symbols < 2 * _CONTINUES)).all()
    if not len(symbols) or not is_valid or not is_last[-1] or lengths.max() > _MAX_CHARACTERS:
        raise StorageError(
            "The counts of a mask must be a string in COCO's compressed notation. Received: "
            f"{counts[:40]!r}; the data was damaged"
        )
    place = np.arange(len(symbols)) - np.repeat(firsts, lengths)
    numbers = np.add.reduceat((symbols & _VALUE_MASK) << (place * _VALUE_BITS), firsts)
    is_negative = (symbols[lasts] & _SIGN_BIT) != 0
    numbers -= is_negative.astype(np.int64) << (lengths * _VALUE_BITS)
    # From the fourth on, a number is the difference from the run two places before.
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
