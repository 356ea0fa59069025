"""Self-attention over a token grid, with decomposed relative positions.

Shapes: `N` windows (or images), `H W` token grid, `S` tokens of it, `C` channels, `h` heads, `d`
channels of a head.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from amg_pipeline.sam.backend import has_accelerator

#: Logits of all heads of a grid up to which all grids of a batch are done together.
_SMALL_LOGITS = 2**17
#: Logits of all heads of a grid up to which its heads are done together.
_LOGITS_AT_ONCE = 2**21
#: Queries of one head that are done together; the first that divides their number.
_QUERIES_AT_ONCE = (256, 128, 144, 100, 64, 49, 36, 25, 16, 8, 4, 2, 1)


@keras.saving.register_keras_serializable(package="amg_pipeline")
class RelPosAttention(keras.layers.Layer):
    """Multi-head self-attention over a token grid, with decomposed relative positions.

    The logits are `scale * q k + q rel_h + q rel_w`, the relative terms with the unscaled query.
    On a processor no more of them are made at a time than its caches hold.

    Args:
        dim: Width of input and output.
        num_heads: Number of heads; must divide `dim`.
        grid_size: Side `(H, W)` of the token grid.
        qkv_bias: Whether query, key and value have a bias.
        use_rel_pos: Whether relative positions are added.

    Source: `Attention` in `modeling/image_encoder.py` of the reference.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid_size: tuple[int, int],
        qkv_bias: bool = True,
        use_rel_pos: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if dim % num_heads:
            raise ValueError(
                f"num_heads must divide dim. Received: dim={dim}, num_heads={num_heads}"
            )
        self.dim = dim
        self.num_heads = num_heads
        self.grid_size = (grid_size[0], grid_size[1])
        self.qkv_bias = qkv_bias
        self.use_rel_pos = use_rel_pos
        self.head_dim = dim // num_heads
        self.qkv = keras.layers.Dense(
            3 * dim, use_bias=qkv_bias, dtype=self.dtype_policy, name="qkv"
        )
        self.proj = keras.layers.Dense(dim, dtype=self.dtype_policy, name="proj")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.qkv.build((*input_shape[:-1], self.dim))
        self.proj.build((*input_shape[:-1], self.dim))
        if self.use_rel_pos:
            height, width = self.grid_size
            self.rel_pos_h = self.add_weight(
                shape=(2 * height - 1, self.head_dim), initializer="zeros", name="rel_pos_h"
            )
            self.rel_pos_w = self.add_weight(
                shape=(2 * width - 1, self.head_dim), initializer="zeros", name="rel_pos_w"
            )
        self.built = True

    def call(self, x: Any) -> Any:
        return self.proj(self.attend(self.qkv(x)))

    def attend(self, qkv: Any) -> Any:
        """Attend within each grid, from its queries, keys and values `(N, H, W, 3 C)`.

        Returns:
            `(N, H, W, C)`, before the output projection.
        """
        height, width = self.grid_size
        tokens = height * width
        qkv = ops.reshape(qkv, (-1, tokens, 3, self.num_heads, self.head_dim))
        qkv = ops.transpose(qkv, (2, 0, 3, 1, 4))  # (3, N, h, S, d)
        query, key, value = qkv[0], qkv[1], qkv[2]
        relative = self._relative_logits(query) if self.use_rel_pos else ()
        parts = (query * self.head_dim**-0.5, key, value, *relative)
        if has_accelerator() or self.num_heads * tokens**2 <= _SMALL_LOGITS:
            attended = self._attend_at_once(*parts)
        elif self.num_heads * tokens**2 <= _LOGITS_AT_ONCE:
            attended = ops.map(lambda grid: self._attend_at_once(*grid), parts)
        else:
            attended = self._attend_by_rows(*parts)
        attended = ops.transpose(attended, (0, 2, 1, 3))
        return ops.reshape(attended, (-1, height, width, self.dim))

    def _relative_logits(self, query: Any) -> tuple[Any, Any]:
        """Give what the distances to each row and each column add: `(N, h, S, H)`, `(N, h, S, W)`.

        With the unscaled query, as in the reference.
        """
        height, width = self.grid_size
        # (H, H, d): row i holds the embeddings of the distances i - j, j the key's row.
        table_h = ops.take(ops.convert_to_tensor(self.rel_pos_h), _distances(height), axis=0)
        table_w = ops.take(ops.convert_to_tensor(self.rel_pos_w), _distances(width), axis=0)
        grid = ops.reshape(query, (-1, self.num_heads, height, width, self.head_dim))
        by_row = ops.matmul(grid, ops.transpose(table_h, (0, 2, 1)))  # (N, h, H, W, H)
        by_column = ops.matmul(
            ops.transpose(grid, (0, 1, 3, 2, 4)), ops.transpose(table_w, (0, 2, 1))
        )
        by_column = ops.transpose(by_column, (0, 1, 3, 2, 4))  # (N, h, H, W, W)
        flat = (-1, self.num_heads, height * width)
        return ops.reshape(by_row, (*flat, height)), ops.reshape(by_column, (*flat, width))

    def _attend_at_once(self, query: Any, key: Any, value: Any, *relative: Any) -> Any:
        """Attend with scaled queries `(..., Q, d)` to keys and values `(..., S, d)`."""
        logits = ops.matmul(query, ops.swapaxes(key, -1, -2))
        if relative:
            by_row, by_column = relative
            grid = ops.reshape(logits, (*ops.shape(logits)[:-1], *self.grid_size))
            grid = grid + ops.expand_dims(by_row, -1) + ops.expand_dims(by_column, -2)
            logits = ops.reshape(grid, ops.shape(logits))
        return ops.matmul(ops.softmax(logits, axis=-1), value)

    def _attend_by_rows(self, query: Any, key: Any, value: Any, *relative: Any) -> Any:
        """Attend some queries of one head at a time, so that caches hold their logits."""
        tokens = self.grid_size[0] * self.grid_size[1]
        rows = next(n for n in _QUERIES_AT_ONCE if tokens % n == 0)

        def attend_head(head: tuple[Any, ...]) -> Any:
            key, value, *queries = head
            turns = tuple(ops.reshape(part, (-1, rows, part.shape[-1])) for part in queries)
            return ops.map(lambda turn: self._attend_at_once(turn[0], key, value, *turn[1:]), turns)

        heads = tuple(
            ops.reshape(part, (-1, tokens, part.shape[-1]))
            for part in (key, value, query, *relative)
        )
        return ops.reshape(ops.map(attend_head, heads), ops.shape(query))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dim": self.dim,
            "num_heads": self.num_heads,
            "grid_size": self.grid_size,
            "qkv_bias": self.qkv_bias,
            "use_rel_pos": self.use_rel_pos,
        }


def _distances(size: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    positions = np.arange(size, dtype=np.int32)
    return positions[:, None] - positions[None, :] + size - 1
