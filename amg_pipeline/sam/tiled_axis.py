"""How an image's axes are cut into tiles, and resized from low-res samples tile by tile.

Shapes: `E` pixels of a tile's edge, `b` low-res samples that a tile's edge spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.sam.postprocess import resize_weights

#: Pixels of a tile's edge; a multiple of 8, the pixels of a packed byte.
EDGE = 128
EDGE_BYTES = EDGE // 8
#: Low-res samples of the blocks whose extremes are looked at; divides every low-res size.
BLOCK = 4
#: Spans are rounded up to one of these, so that few shapes compile.
_SPANS = (8, 16, 24, 32, 40, 56, 72, 104, 136, 200)


@dataclass(frozen=True, slots=True)
class TiledAxis:
    """How one axis of an image is resized, tile by tile.

    Attributes:
        size: Pixels.
        starts: First low-res sample of each tile's span, a multiple of `BLOCK`, `(tiles,)`.
        stops: End of the samples that it uses of its span, likewise.
        weights: On the device, float32 `(tiles or more, E, b)`; zero beyond the image. The vertical
            ones are in the order of `_bits_first`.
        is_pixel: Whether an index along the edge is a pixel of the image, bool `(tiles, E)`.
    """

    size: int
    starts: NDArray[np.int32]
    stops: NDArray[np.int32]
    weights: Any
    is_pixel: NDArray[np.bool_]

    @property
    def packed_pixels(self) -> NDArray[np.uint8]:
        """`is_pixel`, eight a byte, `(tiles, E / 8)`."""
        return np.packbits(self.is_pixel, axis=1)


@lru_cache(maxsize=16)
def tiled_axes(
    low_res_size: tuple[int, int],
    img_size: int,
    input_hw: tuple[int, int],
    image_hw: tuple[int, int],
) -> tuple[TiledAxis, TiledAxis]:
    """Cut both axes into tiles of one span, the vertical one first.

    Args:
        low_res_size: Size `(h, w)` of the logits.
        img_size: Side of the model frame in pixels.
        input_hw: Size of the image in the model frame, without padding.
        image_hw: Size of the masks in pixels.
    """
    matrices = [
        ops.convert_to_numpy(resize_weights(low_res, img_size, into, out))
        for low_res, into, out in zip(low_res_size, input_hw, image_hw, strict=True)
    ]
    needed = max(_needed_span(matrix) for matrix in matrices)
    span = min(next((s for s in _SPANS if s >= needed), max(low_res_size)), *low_res_size)
    cut = [_cut_weights(matrix, span) for matrix in matrices]
    cut[0] = _bits_first(cut[0])
    # Room for a power of two of tiles, so that few shapes compile.
    room = 1 << (max(map(len, cut)) - 1).bit_length()
    vertical, horizontal = (
        _make_axis(matrix, weights, room) for matrix, weights in zip(matrices, cut, strict=True)
    )
    return vertical, horizontal


def _bits_first(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Order the rows of a tile by their place in their byte, then by the byte.

    Packing then adds up whole runs of bytes, which a processor does many at a time.
    """
    tiles, _, span = weights.shape
    by_byte = weights.reshape(tiles, EDGE_BYTES, 8, span)
    return np.ascontiguousarray(by_byte.transpose(0, 2, 1, 3)).reshape(tiles, EDGE, span)


def _needed_span(matrix: NDArray[np.float32]) -> int:
    """Find how many low-res samples the widest tile uses, from a block's border on."""
    spans = [last - first for first, last in (_used(tile) for tile in _tiles_of(matrix))]
    return max(spans)


def _tiles_of(matrix: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [matrix[first : first + EDGE] for first in range(0, len(matrix), EDGE)]


def _used(tile: NDArray[np.float32]) -> tuple[int, int]:
    """Give the range of low-res samples that a tile uses, in whole blocks."""
    used = np.flatnonzero(tile.any(axis=0))
    first, last = int(used[0]), int(used[-1]) + 1
    return first // BLOCK * BLOCK, -(-last // BLOCK) * BLOCK


def _cut_weights(matrix: NDArray[np.float32], span: int) -> NDArray[np.float32]:
    """Cut a matrix that resizes an axis into those of its tiles, `(tiles, E, span)`."""
    tiles = _tiles_of(matrix)
    weights = np.zeros((len(tiles), EDGE, span), np.float32)
    for weight, tile, start in zip(weights, tiles, _starts(matrix, span), strict=True):
        weight[: len(tile)] = tile[:, start : start + span]
    return weights


def _starts(matrix: NDArray[np.float32], span: int) -> list[int]:
    """Find the first low-res sample of each tile."""
    return [min(_used(tile)[0], matrix.shape[1] - span) for tile in _tiles_of(matrix)]


def _make_axis(matrix: NDArray[np.float32], weights: NDArray[np.float32], room: int) -> TiledAxis:
    """Put an axis together, its weights on the device and filled up to so many tiles."""
    tiles, _, span = weights.shape
    padded = np.pad(weights, ((0, room - tiles), (0, 0), (0, 0)))
    return TiledAxis(
        size=len(matrix),
        starts=np.array(_starts(matrix, span), np.int32),
        stops=np.array([_used(tile)[1] for tile in _tiles_of(matrix)], np.int32),
        weights=ops.convert_to_tensor(padded),
        is_pixel=np.arange(tiles * EDGE).reshape(tiles, EDGE) < len(matrix),
    )
