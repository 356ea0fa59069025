"""A grid of positions, cut into rectangles that are worked on one after another.

A processor's caches then hold what is between two steps, and what nobody asks for is left out:
mostly a quarter to a third of the frame in which a model sees a photograph is padding.

Shapes: `N` parts, `H W` grid, `r c` positions of a part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class GridParts:
    """How a grid is cut.

    Attributes:
        grid: Rows and columns of the grid, `(H, W)`.
        part: Rows and columns of a part, `(r, c)`; must divide those of the grid.
        wanted: Which parts are asked for, bool `(N,)`, a tensor; None for all of them.
    """

    grid: tuple[int, int]
    part: tuple[int, int]
    wanted: Any = None

    def within(self, rows: int, columns: int) -> NDArray[np.bool_]:
        """Tell which parts have any of the grid's first rows and columns, `(N,)`."""
        has_row, has_column = (
            np.arange(size // step) * step < used
            for size, step, used in zip(self.grid, self.part, (rows, columns), strict=True)
        )
        return np.outer(has_row, has_column).reshape(-1)

    def cut(self, x: Any, *, axis: int) -> Any:
        """Turn an axis of `H W` positions into one of `r c`, with the parts as first axis."""
        before, after = ops.shape(x)[:axis], ops.shape(x)[axis + 1 :]
        (height, width), (rows, columns) = self._counts, self.part
        x = ops.reshape(x, (*before, height, rows, width, columns, *after))
        x = ops.moveaxis(x, (axis, axis + 2), (0, 1))
        return ops.reshape(x, (height * width, *before, rows * columns, *after))

    def map(self, function: Callable[[Any], Any], pieces: Any, blank: Any = None) -> Any:
        """Give `function` of one part after another, stacked.

        Args:
            function: Takes tensors in the structure of `pieces`, and gives a tensor.
            pieces: Tensors with the parts first, as `cut` gives them.
            blank: What a part that is not wanted gives; needed if there may be such.
        """
        if self._counts == (1, 1):
            whole = keras.tree.map_structure(lambda piece: piece[0], pieces)
            return ops.expand_dims(function(whole), 0)
        if self.wanted is None:
            return ops.map(function, pieces)
        return ops.map(
            lambda part: ops.cond(part[0], lambda: function(part[1]), lambda: blank),
            (ops.convert_to_tensor(self.wanted), pieces),
        )

    def join(self, mapped: Any) -> Any:
        """Put rectangles of equal size `(N, ..., h, w)` together: `(..., H / r h, W / c w)`."""
        (height, width), (_, *between, rows, columns) = self._counts, ops.shape(mapped)
        x = ops.reshape(mapped, (height, width, *between, rows, columns))
        x = ops.moveaxis(x, (0, 1), (-4, -2))
        return ops.reshape(x, (*between, height * rows, width * columns))

    @property
    def _counts(self) -> tuple[int, int]:
        (height, width), (rows, columns) = self.grid, self.part
        return height // rows, width // columns
