"""Label Studio's own run lengths of a mask, as its brush draws them.

The pixels go row by row, each as four equal bytes (red, green, blue, alpha), 255 where the mask is.
A stream of bits holds: 32 bits with the number of bytes, 5 with the size of a value less one, 4 for
each of four sizes of lengths less one; then for each run a bit for "repeated", 2 for which size its
length has, the length less one, and the value.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.export.pixels import MaskWindow

_CHANNELS = 4
_SET = 255
_VALUE_BITS = 8
_LENGTH_BITS = np.array([3, 4, 8, 16])
_LONGEST = 2**16
_HEAD_BITS = 32 + 5 + 4 * 4
_REPEATED = 0b100


def encode_brush(window: MaskWindow, *, height: int, width: int) -> list[int]:
    """Encode a mask of an image of this size.

    Returns:
        The bytes, as numbers, which is how Label Studio's JSON has them.
    """
    lengths, values = _split_long(*_runs(window, height=height, width=width))
    size = np.searchsorted(2**_LENGTH_BITS, lengths)
    length_bits = _LENGTH_BITS[size]
    words = (_REPEATED | size) << length_bits | (lengths - 1)
    words = words << _VALUE_BITS | values
    used = 3 + length_bits + _VALUE_BITS
    head = height * width * _CHANNELS << 5 | _VALUE_BITS - 1
    for bits in _LENGTH_BITS.tolist():
        head = head << 4 | bits - 1
    words, used = np.append(head, words), np.append(_HEAD_BITS, used)
    places = np.arange(_HEAD_BITS - 1, -1, -1)
    bits = (words[:, None] >> places & 1).astype(np.uint8)
    encoded: list[int] = np.packbits(bits[places < used[:, None]]).tolist()
    return encoded


def _runs(
    window: MaskWindow, *, height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the lengths of runs of bytes, row by row over the whole image, and their values."""
    padded = np.pad(window.pixels, ((0, 0), (1, 1)))
    rows, columns = np.nonzero(padded[:, 1:] != padded[:, :-1])
    changes = (rows + window.top) * width + columns + window.left
    # A run that reaches the right side may go on at the left.
    follows = np.flatnonzero(changes[1:-1:2] == changes[2::2])
    changes = np.delete(changes, np.concatenate([2 * follows + 1, 2 * follows + 2]))
    lengths = np.diff(changes, prepend=0, append=height * width)
    values = np.arange(len(lengths)) % 2 * _SET
    kept = lengths > 0
    return lengths[kept] * _CHANNELS, values[kept]


def _split_long(
    lengths: NDArray[np.int64], values: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut runs into pieces of which each fits into the longest notation."""
    pieces = -(-lengths // _LONGEST)
    last = np.cumsum(pieces) - 1
    split = np.full(int(pieces.sum()), _LONGEST)
    split[last] = lengths - (pieces - 1) * _LONGEST
    return split, np.repeat(values, pieces)
