"""Low-res masks by cells: 16 pixels for each position of the image embedding.

The decoder's two transposed convolutions have strides as large as their kernels, so a position is
upscaled to its own 4 x 4 pixels without a look at any other. Training uses this to make masks at a
sample of positions. The pixels of a cell are in the convolutions' order: row and column of the
first, then row and column of the second.

Shapes: `H W` embedding grid, `C` channels, `N` cells, `L` levels.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from amg_pipeline.sam.image_side import DenseImage
from amg_pipeline.sam.mask_decoder import MaskDecoder


def upscale_cells(decoder: MaskDecoder, cells: Any) -> Any:
    """Upscale features of cells `(B, N, C)` to those of their pixels, `(B, N, 16, C / 8)`."""
    return decoder.upscale(DenseImage(cells, None))


def labels_by_cell(label_maps: Any) -> Any:
    """Cut label maps `(B, L, 4 H, 4 W)` into cells `(B, L, H W, 16)`."""
    _, levels, height, width = label_maps.shape
    blocks = ops.reshape(label_maps, (-1, levels, height // 4, 2, 2, width // 4, 2, 2))
    blocks = ops.transpose(blocks, (0, 1, 2, 5, 3, 6, 4, 7))
    return ops.reshape(blocks, (-1, levels, height * width // 16, 16))


def cells_to_grid(values: Any, height: int, width: int) -> Any:
    """Put values by cell `(N, K, 16 H W)` in their places, `(N, K, 4 H, 4 W)`."""
    blocks = ops.reshape(values, (-1, values.shape[1], height, width, 2, 2, 2, 2))
    blocks = ops.transpose(blocks, (0, 1, 2, 4, 6, 3, 5, 7))
    return ops.reshape(blocks, (-1, values.shape[1], 4 * height, 4 * width))


def locate_in_cells(pixels: Any, width: int) -> tuple[Any, Any]:
    """Tell the cells of low-res pixels, and their places in these.

    Args:
        pixels: Flat indices into the grid of `4 W` columns, row by row.
        width: `W`.
    """
    rows, columns = pixels // (4 * width), pixels % (4 * width)
    cells = (rows // 4) * width + columns // 4
    first = 2 * (rows % 4 // 2) + columns % 4 // 2
    return cells, 4 * first + 2 * (rows % 2) + columns % 2
