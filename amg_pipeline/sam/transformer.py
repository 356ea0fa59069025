"""The two-way transformer: prompt tokens attend to the image, the image attends to them.

Shapes: `P` prompts, `T` tokens of a prompt, `S` image positions, `C` channels, `h` heads, `d`
channels of a head. Image tensors may have batch 1 while tokens have batch `P`: the image is then
shared by all prompts, and what depends on it alone is computed once.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from amg_pipeline.sam.image_side import DenseImage, ImageSide
from amg_pipeline.sam.low_rank_image import LowRankImage, image_terms
from amg_pipeline.sam.mlp import MLPBlock
from amg_pipeline.sam.products import multiply_heads

_NORM_EPSILON = 1e-5


@keras.saving.register_keras_serializable(package="amg_pipeline")
class Attention(keras.layers.Layer):
    """Multi-head attention whose inner width may be smaller than the embedding's.

    Args:
        embedding_dim: Width of the inputs and of the output.
        num_heads: Number of heads; must divide the inner width.
        downsample_rate: `embedding_dim` over the inner width.

    Source: `Attention` in `modeling/transformer.py` of the reference.
    """

    def __init__(
        self, embedding_dim: int, num_heads: int, downsample_rate: int = 1, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.embedding_dim = embedding_dim
        self.num_heads = num_heads
        self.downsample_rate = downsample_rate
        self.internal_dim = embedding_dim // downsample_rate
        if self.internal_dim % num_heads:
            raise ValueError(
                "num_heads must divide embedding_dim // downsample_rate. "
                f"Received: num_heads={num_heads}, embedding_dim={embedding_dim}, "
                f"downsample_rate={downsample_rate}"
            )
        self.q_proj = self._projection(self.internal_dim, "q_proj")
        self.k_proj = self._projection(self.internal_dim, "k_proj")
        self.v_proj = self._projection(self.internal_dim, "v_proj")
        self.out_proj = self._projection(embedding_dim, "out_proj")
        self._root = math.sqrt(self.internal_dim // num_heads)

    def _projection(self, units: int, name: str) -> keras.layers.Layer:
        return keras.layers.Dense(units, dtype=self.dtype_policy, name=name)

    def build(self, input_shape: Any = None) -> None:
        for layer in (self.q_proj, self.k_proj, self.v_proj):
            layer.build((None, None, self.embedding_dim))
        self.out_proj.build((None, None, self.internal_dim))
        self.built = True

    def call(self, q: Any, k: Any, v: Any) -> Any:
        query = self.scaled_queries(q)
        key = self.separate_heads(self.k_proj(k))
        value = self.separate_heads(self.v_proj(v))
        weights = ops.softmax(multiply_heads(query, ops.transpose(key, (0, 1, 3, 2))), axis=-1)
        return self.combine(multiply_heads(weights, value))

    def scaled_queries(self, q: Any) -> Any:
        """Project to queries, `(P, h, T, d)`, divided by the root of their width."""
        return self.separate_heads(self.q_proj(q)) / self._root

    def scaled_keys(self, k: Any) -> Any:
        """Project to keys, `(P, h, T, d)`, divided in the queries' place."""
        return self.separate_heads(self.k_proj(k)) / self._root

    def combine(self, attended: Any) -> Any:
        """Join heads `(P, h, T, d)` and project them to `(P, T, C)`."""
        batch, count = ops.shape(attended)[0], ops.shape(attended)[2]
        joined = ops.reshape(
            ops.transpose(attended, (0, 2, 1, 3)), (batch, count, self.internal_dim)
        )
        return self.out_proj(joined)

    def separate_heads(self, x: Any) -> Any:
        """Cut `(P, T, h d)` into heads, `(P, h, T, d)`."""
        batch, count = ops.shape(x)[0], ops.shape(x)[1]
        x = ops.reshape(x, (batch, count, self.num_heads, self.internal_dim // self.num_heads))
        return ops.transpose(x, (0, 2, 1, 3))

    def columns(self, x: Any) -> Any:
        """Cut `(B, S, h d)` into heads with the positions last, `(B, h, d, S)`."""
        return ops.transpose(self.separate_heads(x), (0, 1, 3, 2))

    def row_kernel(self) -> Any:
        """Give the output projection by heads, `(h, d, C)`."""
        return ops.reshape(self.out_proj.kernel, (self.num_heads, -1, self.embedding_dim))

    def project_rows(self, rows: Any, kernel: Any) -> Any:
        """Multiply the rows `(P, h T, C)` with their head's part of `(C, h d)`: `(P, h, T, d)`."""
        by_head = ops.reshape(kernel, (self.embedding_dim, self.num_heads, -1))
        rows = ops.reshape(rows, (ops.shape(rows)[0], self.num_heads, -1, self.embedding_dim))
        return multiply_heads(rows, ops.transpose(by_head, (1, 0, 2)))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "num_heads": self.num_heads,
            "downsample_rate": self.downsample_rate,
        }


@keras.saving.register_keras_serializable(package="amg_pipeline")
class TwoWayAttentionBlock(keras.layers.Layer):
    """Self-attention of tokens, tokens to image, MLP on tokens, image to tokens.

    Args:
        embedding_dim: Width of tokens and image.
        num_heads: Heads of each attention.
        mlp_dim: Hidden width of the MLP.
        attention_downsample_rate: Inner width of the cross-attentions, as a divisor.
        skip_first_layer_pe: Whether the self-attention replaces the tokens, without their
            positions and without a residual, as in the first block.

    Source: `TwoWayAttentionBlock` of the reference.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int = 2048,
        attention_downsample_rate: int = 2,
        skip_first_layer_pe: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embedding_dim = embedding_dim
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.attention_downsample_rate = attention_downsample_rate
        self.skip_first_layer_pe = skip_first_layer_pe
        policy = self.dtype_policy
        rate = attention_downsample_rate
        self.self_attn = Attention(embedding_dim, num_heads, dtype=policy, name="self_attn")
        self.norm1 = _norm(policy, "norm1")
        self.cross_attn_token_to_image = Attention(
            embedding_dim, num_heads, rate, dtype=policy, name="cross_attn_token_to_image"
        )
        self.norm2 = _norm(policy, "norm2")
        self.mlp = MLPBlock(embedding_dim, mlp_dim, "relu", dtype=policy, name="mlp")
        self.norm3 = _norm(policy, "norm3")
        self.norm4 = _norm(policy, "norm4")
        self.cross_attn_image_to_token = Attention(
            embedding_dim, num_heads, rate, dtype=policy, name="cross_attn_image_to_token"
        )

    def build(self, input_shape: Any = None) -> None:
        for layer in (
            self.self_attn,
            self.norm1,
            self.cross_attn_token_to_image,
            self.norm2,
            self.mlp,
            self.norm3,
            self.norm4,
            self.cross_attn_image_to_token,
        ):
            layer.build((None, None, self.embedding_dim))
        self.built = True

    def call(self, queries: Any, keys: Any, query_pe: Any, key_pe: Any) -> tuple[Any, Any]:
        queries, image = self.step(queries, DenseImage(keys, key_pe), query_pe)
        return queries, image.features()

    def step(self, queries: Any, image: ImageSide, query_pe: Any) -> tuple[Any, ImageSide]:
        """Run the block on an image in either form."""
        if self.skip_first_layer_pe:
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)
        attended = image.attended_by(self.cross_attn_token_to_image, queries + query_pe)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))
        return queries, image.attend_to(self, queries + query_pe, queries)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "attention_downsample_rate": self.attention_downsample_rate,
            "skip_first_layer_pe": self.skip_first_layer_pe,
        }


@keras.saving.register_keras_serializable(package="amg_pipeline")
class TwoWayTransformer(keras.layers.Layer):
    """Alternates between tokens and image, then lets the tokens look at the image once more.

    Called as `transformer(image_embedding, image_pe, point_embedding)` with `(P or 1, H, W, C)`,
    `(H, W, C)` or `(1, H, W, C)`, and `(P, T, C)`. Returns tokens `(P, T, C)` and image
    `(P, H * W, C)`.

    Args:
        depth: Number of two-way blocks.
        embedding_dim: Width of tokens and image.
        num_heads: Heads of each attention.
        mlp_dim: Hidden width of the blocks' MLPs.
        attention_downsample_rate: Inner width of the cross-attentions, as a divisor.

    Source: `TwoWayTransformer` of the reference.
    """

    def __init__(
        self,
        depth: int = 2,
        embedding_dim: int = 256,
        num_heads: int = 8,
        mlp_dim: int = 2048,
        attention_downsample_rate: int = 2,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.depth = depth
        self.embedding_dim = embedding_dim
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.attention_downsample_rate = attention_downsample_rate
        policy = self.dtype_policy
        self.layers = [
            TwoWayAttentionBlock(
                embedding_dim,
                num_heads,
                mlp_dim,
                attention_downsample_rate,
                skip_first_layer_pe=(i == 0),
                dtype=policy,
                name=f"layers_{i}",
            )
            for i in range(depth)
        ]
        self.final_attn_token_to_image = Attention(
            embedding_dim,
            num_heads,
            attention_downsample_rate,
            dtype=policy,
            name="final_attn_token_to_image",
        )
        self.norm_final_attn = _norm(policy, "norm_final_attn")

    def build(self, input_shape: Any = None) -> None:
        for layer in (*self.layers, self.final_attn_token_to_image, self.norm_final_attn):
            layer.build((None, None, self.embedding_dim))
        self.built = True

    def call(self, image_embedding: Any, image_pe: Any, point_embedding: Any) -> tuple[Any, Any]:
        image = self.image_side(image_embedding, image_pe, point_embedding.shape[1])
        queries, image = self.attend(image, point_embedding)
        return queries, image.features()

    def image_side(self, image_embedding: Any, image_pe: Any, num_tokens: int | None) -> ImageSide:
        """Prepare an image for prompts of so many tokens, in the form that is cheaper for them."""
        tokens, positions = self._positions(image_embedding), self._positions(image_pe)
        if not self.is_low_rank(num_tokens):
            return DenseImage(tokens, positions)
        terms = image_terms(self.layers, self.final_attn_token_to_image, tokens, positions)
        return LowRankImage(terms)

    def is_low_rank(self, num_tokens: int | None) -> bool:
        """Tell whether `LowRankImage` is the cheaper form for prompts of so many tokens.

        It is while the rows that all blocks add are no more than an attention's inner width. It
        computes norms from sums of products, which half precision cannot hold, multiplies kernels,
        which quantised layers do not have, and needs a second token.
        """
        is_quantized = self.final_attn_token_to_image.q_proj.quantization_mode is not None
        if num_tokens is None or self.compute_dtype != "float32" or is_quantized:
            return False
        rows = ((num_tokens - 1) * self.num_heads + 1) * self.depth
        return num_tokens > 1 and rows <= self.embedding_dim // self.attention_downsample_rate

    def attend(self, image: ImageSide, point_embedding: Any) -> tuple[Any, ImageSide]:
        """Run tokens `(P, T, C)` against an image in either form, to the end."""
        queries, image = self.run_blocks(image, point_embedding)
        return self.look_once_more(image, queries, point_embedding), image

    def run_blocks(self, image: ImageSide, point_embedding: Any) -> tuple[Any, ImageSide]:
        """Run tokens `(P, T, C)` and image through the blocks."""
        queries = point_embedding
        for layer in self.layers:
            queries, image = layer.step(queries, image, point_embedding)
        return queries, image

    def look_once_more(self, image: ImageSide, queries: Any, point_embedding: Any) -> Any:
        """Finish some tokens after the blocks, each for itself, `(P, t, C)`."""
        attended = image.attended_by(self.final_attn_token_to_image, queries + point_embedding)
        return self.norm_final_attn(queries + attended)

    def _positions(self, grid: Any) -> Any:
        """Flatten `(P, H, W, C)` or `(H, W, C)` to `(P or 1, S, C)`."""
        batch = ops.shape(grid)[0] if len(grid.shape) == 4 else 1
        return ops.reshape(grid, (batch, -1, self.embedding_dim))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "depth": self.depth,
            "embedding_dim": self.embedding_dim,
            "num_heads": self.num_heads,
            "mlp_dim": self.mlp_dim,
            "attention_downsample_rate": self.attention_downsample_rate,
        }


def _norm(policy: Any, name: str) -> keras.layers.Layer:
    return keras.layers.LayerNormalization(epsilon=_NORM_EPSILON, dtype=policy, name=name)
