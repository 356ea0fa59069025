"""Low-res logits to measured and packed full-size masks, tile by tile.

The image is cut into square tiles. A tile whose low-res logits all lie on one side of every
threshold is known without being made: resizing takes averages with positive weights, which stay
between the smallest and the largest value. Only tiles with a border are made on the device, a fixed
number at a time, so that few shapes compile, whatever the image's size and its number of masks.

Shapes: `M` masks, `h w` low-res, `N` tiles of a call, `E` pixels of a tile's edge, `b` low-res
samples that a tile's edge spans.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.records import MaskBatch
from amg_pipeline.sam.backend import compile_function
from amg_pipeline.sam.tiled_axis import BLOCK, EDGE, EDGE_BYTES, TiledAxis, tiled_axes

#: Tiles of one call.
_TILES = 64
#: By how much, relative, rounding may carry an average beyond what it is an average of.
_ROUNDING = 1e-4


class Rasterizer:
    """Makes full-size masks of a model's low-res logits.

    Args:
        low_res_size: Size `(h, w)` of the logits.
        img_size: Side of the model frame in pixels.
        mask_threshold: Logit above which a pixel is mask.
    """

    def __init__(
        self, low_res_size: tuple[int, int], img_size: int, *, mask_threshold: float
    ) -> None:
        self._low_res_size = low_res_size
        self._img_size = img_size
        self._threshold = mask_threshold
        self._find_extremes = compile_function(block_extremes, [], fuse=True)
        self._make_tiles = compile_function(make_tiles, [], fuse=True)

    def samples_used(
        self, *, image_hw: tuple[int, int], input_hw: tuple[int, int]
    ) -> tuple[int, int]:
        """Tell how many rows and columns of the logits an image's masks are made of.

        Args:
            image_hw: Size of the masks in pixels.
            input_hw: Size of the image in the model frame, without padding.
        """
        vertical, horizontal = tiled_axes(self._low_res_size, self._img_size, input_hw, image_hw)
        return int(vertical.stops.max()), int(horizontal.stops.max())

    def measure(
        self,
        logits: Any,
        chosen: NDArray[np.intp],
        *,
        image_hw: tuple[int, int],
        input_hw: tuple[int, int],
        stability_score_offset: float,
    ) -> MaskBatch:
        """Make and measure some of the masks.

        Args:
            logits: float32 `(M', h, w)` on the device; what `samples_used` leaves out may be any
                finite number.
            chosen: Which of them, `(M,)`.
            image_hw: Size of the masks in pixels.
            input_hw: Size of the image in the model frame, without padding.
            stability_score_offset: Distance in logits by which the threshold is moved.
        """
        axes = tiled_axes(self._low_res_size, self._img_size, input_hw, image_hw)
        lowest, highest = (
            np.asarray(ops.convert_to_numpy(part))[chosen] for part in self._find_extremes(logits)
        )
        above = _tile_extremes(lowest, axes, np.min)
        below = _tile_extremes(highest, axes, np.max)
        reach = abs(stability_score_offset)
        is_full = above > self._threshold + reach + _ROUNDING * np.maximum(1, np.abs(above))
        is_empty = below < self._threshold - reach - _ROUNDING * np.maximum(1, np.abs(below))
        sheet = _Sheet(len(chosen), axes)
        sheet.fill(*np.nonzero(is_full))
        masks, rows, columns = np.nonzero(~(is_full | is_empty))
        for first in range(0, len(masks), _TILES):
            some = slice(first, first + _TILES)
            tiles = (masks[some], rows[some], columns[some])
            sheet.put(*tiles, self._tiles(logits, chosen, tiles, axes, stability_score_offset))
        return sheet.finish()

    def _tiles(
        self,
        logits: Any,
        chosen: NDArray[np.intp],
        tiles: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]],
        axes: tuple[TiledAxis, TiledAxis],
        offset: float,
    ) -> NDArray[np.uint8]:
        """Give the pixels above the three thresholds, packed; those beyond the image are any."""
        count = len(tiles[0])
        # The last tile once more, until the call is full.
        masks, rows, columns = (np.pad(part, (0, _TILES - count), mode="edge") for part in tiles)
        vertical, horizontal = axes
        made = self._make_tiles(
            logits,
            np.stack(
                [chosen[masks], vertical.starts[rows], horizontal.starts[columns], rows, columns],
                axis=1,
            ).astype(np.int32),
            vertical.weights,
            horizontal.weights,
            np.array([offset, 0.0, -offset], np.float32) + np.float32(self._threshold),
        )
        return np.asarray(ops.convert_to_numpy(made)[:, :count])


class _Sheet:
    """Collects tiles of packed masks."""

    def __init__(self, masks: int, axes: tuple[TiledAxis, TiledAxis]) -> None:
        self._vertical, self._horizontal = axes
        rows, columns = len(self._vertical.starts), len(self._horizontal.starts)
        self._packed = np.zeros((masks, columns, EDGE, rows, EDGE_BYTES), np.uint8)
        self._counts = np.zeros((2, masks), np.int64)

    def fill(
        self, masks: NDArray[np.intp], rows: NDArray[np.intp], columns: NDArray[np.intp]
    ) -> None:
        """Set tiles that are above all thresholds from edge to edge."""
        full = np.full((3, 1, EDGE, EDGE_BYTES), 255, np.uint8)
        for first in range(0, len(masks), _TILES):
            some = slice(first, first + _TILES)
            self.put(masks[some], rows[some], columns[some], full)

    def put(
        self,
        masks: NDArray[np.intp],
        rows: NDArray[np.intp],
        columns: NDArray[np.intp],
        packed: NDArray[np.uint8],
    ) -> None:
        """Set tiles to the pixels above the three thresholds, uint8 `(3, N, E, E / 8)`."""
        down = self._vertical.packed_pixels[rows][:, None, :]
        across = self._horizontal.is_pixel[columns][:, :, None]
        stable, mask, possible = packed & (down * across)
        self._packed[masks, columns, :, rows] = mask
        for total, pixels in zip(self._counts, (stable, possible), strict=True):
            np.add.at(total, masks, np.bitwise_count(pixels).sum(axis=(1, 2), dtype=np.int64))

    def finish(self) -> MaskBatch:
        """Cut the image out of the tiles and find the boxes."""
        height, width = self._vertical.size, self._horizontal.size
        masks, columns, _, rows, _ = self._packed.shape
        sheet = self._packed.reshape(masks, columns * EDGE, rows * EDGE_BYTES)
        packed = sheet[:, :width, : -(-height // 8)]
        has_row = np.unpackbits(np.bitwise_or.reduce(packed, axis=1), axis=1)[:, :height]
        return MaskBatch(
            stable_pixels=self._counts[0],
            possible_pixels=self._counts[1],
            boxes_xyxy=boxes_from_profiles(has_row.astype(bool), np.any(packed, axis=2)),
            packed=packed,
            height=height,
            width=width,
        )


def block_extremes(logits: Any) -> tuple[Any, Any]:
    """Give the smallest and the largest of each block of logits `(M, h, w)`."""
    _, height, width = logits.shape
    shape = (-1, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
    blocks = ops.reshape(logits, shape)
    return ops.min(blocks, axis=(2, 4)), ops.max(blocks, axis=(2, 4))


def make_tiles(logits: Any, places: Any, weights_y: Any, weights_x: Any, thresholds: Any) -> Any:
    """Resize, threshold and pack tiles of masks.

    Args:
        logits: float32 `(M, h, w)`.
        places: Mask, first row and first column of each tile's low-res part, and its row and column
            among the tiles, int32 `(N, 5)`.
        weights_y: Of each row of tiles `(R, E, b)`, the rows of a byte apart, see `tiled_axis.py`.
        weights_x: Of each column of tiles `(R', E, b)`.
        thresholds: float32 `(t,)`.

    Returns:
        The pixels above each threshold by column, eight rows a byte, the first in the highest bit:
        uint8 `(t, N, E, E / 8)`.
    """
    places = ops.convert_to_tensor(places)
    part = _cut(ops.convert_to_tensor(logits), places, weights_x.shape[-1])
    down = ops.take(weights_y, places[:, 3], axis=0)
    across = ops.take(weights_x, places[:, 4], axis=0)
    columns = ops.matmul(across, ops.transpose(part, (0, 2, 1)))  # (N, E, b)
    tile = ops.matmul(columns, ops.transpose(down, (0, 2, 1)))  # (N, column, row)
    bits = ops.reshape(tile, (1, -1, EDGE, 8, EDGE_BYTES))
    is_above = bits > ops.reshape(thresholds, (-1, 1, 1, 1, 1))
    places_of_bits = ops.convert_to_tensor(2 ** np.arange(7, -1, -1).reshape(8, 1), "int32")
    return ops.cast(ops.sum(ops.where(is_above, places_of_bits, 0), axis=3), "uint8")


def _cut(logits: Any, places: Any, span: int) -> Any:
    """Cut squares `(N, span, span)` out of the logits, in pieces of whole blocks."""
    _, height, width = logits.shape
    pieces_of_row, pieces = width // BLOCK, span // BLOCK
    rows = places[:, 0:1] * height + places[:, 1:2] + ops.arange(span, dtype="int32")[None]
    columns = places[:, 2:3] // BLOCK + ops.arange(pieces, dtype="int32")[None]
    indices = ops.expand_dims(rows, 2) * pieces_of_row + ops.expand_dims(columns, 1)
    flat = ops.reshape(logits, (-1, BLOCK))
    return ops.reshape(ops.take(flat, indices, axis=0), (-1, span, span))


def _tile_extremes(
    blocks: NDArray[np.float32],
    axes: tuple[TiledAxis, TiledAxis],
    extreme: Callable[..., NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Reduce blocks `(M, h / 4, w / 4)` to the tiles that they touch, `(M, rows, columns)`."""
    for axis, cut in zip((1, 2), axes, strict=True):
        spans = zip(cut.starts // BLOCK, cut.stops // BLOCK, strict=True)
        blocks = np.stack(
            [extreme(np.take(blocks, range(*span), axis=axis), axis=axis) for span in spans],
            axis=axis,
        )
    return blocks


def boxes_from_profiles(rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Turn occupied rows `(M, H)` and columns `(M, W)` into inclusive XYXY boxes `(M, 4)`.

    Empty masks get zeros.
    """
    occupied: NDArray[np.bool_] = np.any(rows, axis=1)
    top, left = rows.argmax(axis=1), columns.argmax(axis=1)
    bottom = rows.shape[1] - 1 - rows[:, ::-1].argmax(axis=1)
    right = columns.shape[1] - 1 - columns[:, ::-1].argmax(axis=1)
    boxes = np.stack([left, top, right, bottom], axis=1).astype(np.int64)
    return np.where(occupied[:, None], boxes, 0)
