"""The image encoder: a plain ViT with windowed attention and a convolutional neck.

Shapes: `B` images, `N` windows, `H W` token grid, `C` channels.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from amg_pipeline.sam.mlp import MLPBlock
from amg_pipeline.sam.rel_pos_attention import RelPosAttention

_NORM_EPSILON = 1e-6


def window_partition(x: Any, window_size: int, *, padding: Any = None) -> Any:
    """Cut a token grid `(B, H, W, C)` into windows `(N, window_size, window_size, C)`.

    The grid is padded right and bottom to whole windows. The padding tokens take part in attention,
    as in the reference, which pads with zeros before it projects: `padding`, `(C,)`, is then what
    the projection makes of zeros.
    """
    _, height, width, channels = x.shape
    pad_h, pad_w = -height % window_size, -width % window_size
    if pad_h or pad_w:
        x = ops.pad(x, ((0, 0), (0, pad_h), (0, pad_w), (0, 0)))
        if padding is not None:
            is_padding = np.ones((1, height + pad_h, width + pad_w, 1), np.float32)
            is_padding[:, :height, :width] = 0.0
            x = x + ops.cast(is_padding, x.dtype) * ops.cast(padding, x.dtype)
    rows, columns = (height + pad_h) // window_size, (width + pad_w) // window_size
    x = ops.reshape(x, (-1, rows, window_size, columns, window_size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, window_size, window_size, channels))


def window_unpartition(windows: Any, window_size: int, height: int, width: int) -> Any:
    """Join windows `(N, window_size, window_size, C)` to the grid `(B, height, width, C)`."""
    rows, columns = -(-height // window_size), -(-width // window_size)
    channels = windows.shape[-1]
    x = ops.reshape(windows, (-1, rows, columns, window_size, window_size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    x = ops.reshape(x, (-1, rows * window_size, columns * window_size, channels))
    return x[:, :height, :width, :]


@keras.saving.register_keras_serializable(package="amg_pipeline")
class Block(keras.layers.Layer):
    """A pre-norm transformer block over a token grid, with windowed or global attention.

    Args:
        dim: Width of the tokens.
        num_heads: Number of attention heads.
        grid_size: Side `(H, W)` of the whole token grid.
        mlp_ratio: Width of the MLP relative to `dim`.
        qkv_bias: Whether query, key and value have a bias.
        use_rel_pos: Whether relative positions are added.
        window_size: Side of the attention windows in tokens; 0 for global attention.

    Source: `Block` in `modeling/image_encoder.py` of the reference.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid_size: tuple[int, int],
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        use_rel_pos: bool = True,
        window_size: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.num_heads = num_heads
        self.grid_size = (grid_size[0], grid_size[1])
        self.mlp_ratio = mlp_ratio
        self.qkv_bias = qkv_bias
        self.use_rel_pos = use_rel_pos
        self.window_size = window_size
        policy = self.dtype_policy
        self.norm1 = keras.layers.LayerNormalization(
            epsilon=_NORM_EPSILON, dtype=policy, name="norm1"
        )
        self.attn = RelPosAttention(
            dim,
            num_heads,
            (window_size, window_size) if window_size else self.grid_size,
            qkv_bias=qkv_bias,
            use_rel_pos=use_rel_pos,
            dtype=policy,
            name="attn",
        )
        self.norm2 = keras.layers.LayerNormalization(
            epsilon=_NORM_EPSILON, dtype=policy, name="norm2"
        )
        self.mlp = MLPBlock(dim, int(dim * mlp_ratio), dtype=policy, name="mlp")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        for layer in (self.norm1, self.attn, self.norm2, self.mlp):
            layer.build((None, *self.grid_size, self.dim))
        self.built = True

    def call(self, x: Any) -> Any:
        qkv = self.attn.qkv(self.norm1(x))
        if self.window_size:
            windows = window_partition(qkv, self.window_size, padding=self.attn.qkv.bias)
            attended = self.attn.attend(windows)
            attended = window_unpartition(attended, self.window_size, *self.grid_size)
        else:
            attended = self.attn.attend(qkv)
        x = x + self.attn.proj(attended)
        return x + self.mlp(self.norm2(x))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "dim": self.dim,
            "num_heads": self.num_heads,
            "grid_size": self.grid_size,
            "mlp_ratio": self.mlp_ratio,
            "qkv_bias": self.qkv_bias,
            "use_rel_pos": self.use_rel_pos,
            "window_size": self.window_size,
        }


@keras.saving.register_keras_serializable(package="amg_pipeline")
class ImageEncoderViT(keras.layers.Layer):
    """Embeds normalised, padded images.

    Input `(B, img_size, img_size, 3)`, output `(B, img_size / patch_size, img_size / patch_size,
    out_chans)` in the layer's compute dtype.

    Args:
        img_size: Side of the square input in pixels.
        patch_size: Side of a patch in pixels; must divide `img_size`.
        in_chans: Channels of the input.
        embed_dim: Width of the tokens.
        depth: Number of transformer blocks.
        num_heads: Attention heads of a block.
        mlp_ratio: Width of a block's MLP relative to `embed_dim`.
        out_chans: Channels of the embedding.
        qkv_bias: Whether query, key and value have a bias.
        use_abs_pos: Whether learned absolute positions are added to the patches.
        use_rel_pos: Whether attention adds relative positions.
        window_size: Side in tokens of the windows of windowed attention; 0 makes every block
            global.
        global_attn_indexes: Blocks with global attention.

    Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A; `ImageEncoderViT` of the reference.
    """

    def __init__(
        self,
        img_size: int = 1024,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_chans: int = 256,
        qkv_bias: bool = True,
        use_abs_pos: bool = True,
        use_rel_pos: bool = True,
        window_size: int = 14,
        global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if img_size % patch_size:
            raise ValueError(
                "patch_size must divide img_size. "
                f"Received: img_size={img_size}, patch_size={patch_size}"
            )
        self.img_size = img_size
        self.patch_size = patch_size
        self.in_chans = in_chans
        self.embed_dim = embed_dim
        self.depth = depth
        self.num_heads = num_heads
        self.mlp_ratio = mlp_ratio
        self.out_chans = out_chans
        self.qkv_bias = qkv_bias
        self.use_abs_pos = use_abs_pos
        self.use_rel_pos = use_rel_pos
        self.window_size = window_size
        self.global_attn_indexes = tuple(global_attn_indexes)
        self.grid_size = (img_size // patch_size, img_size // patch_size)
        policy = self.dtype_policy
        self.patch_embed = keras.layers.Conv2D(
            embed_dim,
            patch_size,
            strides=patch_size,
            data_format="channels_last",
            dtype=policy,
            name="patch_embed",
        )
        self.blocks = [
            Block(
                embed_dim,
                num_heads,
                self.grid_size,
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                use_rel_pos=use_rel_pos,
                window_size=0 if i in self.global_attn_indexes else window_size,
                dtype=policy,
                name=f"blocks_{i}",
            )
            for i in range(depth)
        ]
        self.neck = [
            self._neck_convolution(1, "neck_0"),
            self._neck_norm("neck_1"),
            self._neck_convolution(3, "neck_2"),
            self._neck_norm("neck_3"),
        ]

    def _neck_convolution(self, kernel_size: int, name: str) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            self.out_chans,
            kernel_size,
            padding="same",
            use_bias=False,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name=name,
        )

    def _neck_norm(self, name: str) -> keras.layers.Layer:
        return keras.layers.LayerNormalization(
            epsilon=_NORM_EPSILON, dtype=self.dtype_policy, name=name
        )

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """Sublayers from input to output, for freezing a part of them."""
        return [self.patch_embed, *self.blocks, *self.neck]

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        self.patch_embed.build((None, self.img_size, self.img_size, self.in_chans))
        if self.use_abs_pos:
            self.pos_embed = self.add_weight(
                shape=(1, *self.grid_size, self.embed_dim), initializer="zeros", name="pos_embed"
            )
        for block in self.blocks:
            block.build((None, *self.grid_size, self.embed_dim))
        channels = self.embed_dim
        for layer in self.neck:
            layer.build((None, *self.grid_size, channels))
            channels = self.out_chans
        self.built = True

    def call(self, x: Any) -> Any:
        expected = (self.img_size, self.img_size, self.in_chans)
        if len(x.shape) != 4 or tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"The image encoder expects preprocessed images of shape (B, {self.img_size}, "
                f"{self.img_size}, {self.in_chans}); call SAM.preprocess first. "
                f"Received: {tuple(x.shape)}"
            )
        x = self.patch_embed(x)
        if self.use_abs_pos:
            x = x + ops.cast(self.pos_embed, x.dtype)
        for block in self.blocks:
            x = block(x)
        for layer in self.neck:
            x = layer(x)
        return x

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...] | None = None
    ) -> tuple[int | None, ...]:
        return (input_shape[0] if input_shape else None, *self.grid_size, self.out_chans)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "img_size": self.img_size,
            "patch_size": self.patch_size,
            "in_chans": self.in_chans,
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "mlp_ratio": self.mlp_ratio,
            "out_chans": self.out_chans,
            "qkv_bias": self.qkv_bias,
            "use_abs_pos": self.use_abs_pos,
            "use_rel_pos": self.use_rel_pos,
            "window_size": self.window_size,
            "global_attn_indexes": self.global_attn_indexes,
        }
