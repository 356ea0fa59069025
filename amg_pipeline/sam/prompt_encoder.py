"""The prompt encoder: points, boxes and masks to tokens and a dense embedding.

Shapes: `B` prompts, `N` points, `M` boxes, `C` channels of the embedding, `H W` embedding grid.
Coordinates are XY (boxes XYXY) in pixels of the model frame, as the reference's.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

#: Meaning of a point's label: its row in the table of type embeddings is `label + 1`.
LABEL_NOT_A_POINT = -1
LABEL_BACKGROUND = 0
LABEL_FOREGROUND = 1
LABEL_BOX_TOP_LEFT = 2
LABEL_BOX_BOTTOM_RIGHT = 3


@keras.saving.register_keras_serializable(package="amg_pipeline")
class PositionEmbeddingRandom(keras.layers.Layer):
    """Fourier features of coordinates with fixed random frequencies.

    Always computes in float32: in half precision the phase is off by a tenth of a turn.

    Args:
        num_pos_feats: Number of frequencies; the embedding has twice as many channels.

    Source: `PositionEmbeddingRandom` of the reference (Tancik et al. 2020, arXiv:2006.10739).
    """

    def __init__(self, num_pos_feats: int = 128, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.num_pos_feats = num_pos_feats

    def build(self, input_shape: tuple[int | None, ...] | None = None) -> None:
        self.positional_encoding_gaussian_matrix = self.add_weight(
            shape=(2, self.num_pos_feats),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            trainable=False,
            name="positional_encoding_gaussian_matrix",
        )
        self.built = True

    def call(self, coords: Any) -> Any:
        phases = (2.0 * math.pi) * ops.matmul(
            2.0 * coords - 1.0, self.positional_encoding_gaussian_matrix
        )
        return ops.concatenate([ops.sin(phases), ops.cos(phases)], axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_pos_feats": self.num_pos_feats}


@keras.saving.register_keras_serializable(package="amg_pipeline")
class PromptEncoder(keras.layers.Layer):
    """Embeds prompts for the mask decoder.

    Called with any of `points`, `boxes` and `masks`:

    - `points`: `(coords, labels)`, coords `(B, N, 2)` in pixels of the model frame, labels
      `(B, N)`: 1 foreground, 0 background, -1 no point, 2 and 3 the corners of a box. Without the
      batch axis they are one prompt.
    - `boxes`: `(B, M, 4)`, XYXY in pixels of the model frame.
    - `masks`: `(B, 1, 4 H, 4 W)`, low-res logits of an earlier call.

    Returns `(sparse, dense)`: tokens `(B, T, C)`, T being N + 2 M, and one more for a padding point
    when points come without a box; and `(B, H, W, C)`, of batch 1 when there is no mask, since it
    is the same for all prompts. Always computes in float32: half precision loses a pixel.

    Args:
        embed_dim: Channels of the embeddings.
        image_embedding_size: Size `(H, W)` of the embedding grid.
        input_image_size: Size `(height, width)` of the model frame in pixels.
        mask_in_chans: Hidden channels of the mask's convolutions.

    Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A; `PromptEncoder` of the reference.
    """

    def __init__(
        self,
        embed_dim: int = 256,
        image_embedding_size: tuple[int, int] = (64, 64),
        input_image_size: tuple[int, int] = (1024, 1024),
        mask_in_chans: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.embed_dim = embed_dim
        self.image_embedding_size = tuple(image_embedding_size)
        self.input_image_size = tuple(input_image_size)
        self.mask_in_chans = mask_in_chans
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2, name="pe_layer")
        self.mask_downscaling = [
            self._mask_convolution(mask_in_chans // 4, 2, "mask_downscaling_0"),
            keras.layers.LayerNormalization(
                epsilon=1e-6, dtype="float32", name="mask_downscaling_1"
            ),
            self._mask_convolution(mask_in_chans, 2, "mask_downscaling_3"),
            keras.layers.LayerNormalization(
                epsilon=1e-6, dtype="float32", name="mask_downscaling_4"
            ),
            self._mask_convolution(embed_dim, 1, "mask_downscaling_6"),
        ]

    @staticmethod
    def _mask_convolution(filters: int, size: int, name: str) -> keras.layers.Layer:
        return keras.layers.Conv2D(
            filters,
            size,
            strides=size,
            data_format="channels_last",
            dtype="float32",
            name=name,
        )

    @property
    def mask_input_size(self) -> tuple[int, int]:
        """Size `(height, width)` of a mask prompt."""
        return (4 * self.image_embedding_size[0], 4 * self.image_embedding_size[1])

    def build(self, input_shape: Any = None) -> None:
        self.pe_layer.build()
        height, width = self.mask_input_size
        channels = 1
        for layer in self.mask_downscaling:
            layer.build((None, height, width, channels))
            if isinstance(layer, keras.layers.Conv2D):
                channels = layer.filters
        self.point_embeddings = [self._embedding(f"point_embeddings_{i}") for i in range(4)]
        self.not_a_point_embed = self._embedding("not_a_point_embed")
        self.no_mask_embed = self._embedding("no_mask_embed")
        self.built = True

    def _embedding(self, name: str) -> keras.Variable:
        return self.add_weight(
            shape=(1, self.embed_dim),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name=name,
        )

    def get_dense_pe(self) -> Any:
        """Give the positional encoding of the embedding grid, float32 `(H, W, C)`."""
        height, width = self.image_embedding_size
        rows = (ops.arange(height, dtype="float32") + 0.5) / height
        columns = (ops.arange(width, dtype="float32") + 0.5) / width
        grid_x, grid_y = ops.meshgrid(columns, rows)
        return self.pe_layer(ops.stack([grid_x, grid_y], axis=-1))

    def call(self, points: Any = None, boxes: Any = None, masks: Any = None) -> tuple[Any, Any]:
        tokens = []
        if points is not None:
            coords, labels = _as_batch_of_points(points)
            if boxes is None:
                coords, labels = _with_padding_point(coords, labels)
            tokens.append(self.embed_points(coords, labels))
        if boxes is not None:
            tokens.append(self._embed_boxes(boxes))
        dense = self.embed_masks(masks) if masks is not None else self._no_mask()
        if tokens:
            sparse = ops.concatenate(tokens, axis=1)
        else:
            batch = 1 if masks is None else ops.shape(masks)[0]
            sparse = ops.zeros((batch, 0, self.embed_dim), dtype="float32")
        return sparse, dense

    def embed_normalized_points(self, coords: Any, labels: Any) -> Any:
        """Embed points whose pixel centres are given in [0, 1] of the model frame.

        Callers that compute coordinates in float64 round only once this way.

        Args:
            coords: float32 `(B, N, 2)` XY: `(pixel + 0.5) / size`.
            labels: int `(B, N)`.

        Returns:
            float32 `(B, N, C)`; no padding point is added.
        """
        table = ops.concatenate([self.not_a_point_embed, *self.point_embeddings], axis=0)
        labels = ops.cast(labels, "int32")
        is_point = ops.cast(ops.expand_dims(labels != LABEL_NOT_A_POINT, -1), "float32")
        return self.pe_layer(coords) * is_point + ops.take(table, labels + 1, axis=0)

    def embed_masks(self, masks: Any) -> Any:
        """Embed low-res logits `(B, 1, 4 H, 4 W)` as `(B, H, W, C)`, float32."""
        masks = ops.convert_to_tensor(masks)
        expected = (1, *self.mask_input_size)
        if len(masks.shape) != 4 or tuple(masks.shape[1:]) != expected:
            raise ValueError(
                f"masks must be low-res logits of shape (B, {', '.join(map(str, expected))}). "
                f"Received: {tuple(masks.shape)}"
            )
        x = ops.transpose(ops.cast(masks, "float32"), (0, 2, 3, 1))
        first, first_norm, second, second_norm, last = self.mask_downscaling
        x = ops.gelu(first_norm(first(x)), approximate=False)
        x = ops.gelu(second_norm(second(x)), approximate=False)
        return last(x)

    def _no_mask(self) -> Any:
        height, width = self.image_embedding_size
        embedding = ops.reshape(self.no_mask_embed, (1, 1, 1, self.embed_dim))
        return ops.broadcast_to(embedding, (1, height, width, self.embed_dim))

    def embed_points(self, coords: Any, labels: Any) -> Any:
        """Embed points in pixels of the model frame; no padding point is added.

        Args:
            coords: `(B, N, 2)` XY in pixels.
            labels: int `(B, N)`.

        Returns:
            float32 `(B, N, C)`.
        """
        height, width = self.input_image_size
        sizes = ops.convert_to_tensor([width, height], dtype="float32")
        return self.embed_normalized_points((ops.cast(coords, "float32") + 0.5) / sizes, labels)

    def _embed_boxes(self, boxes: Any) -> Any:
        boxes = ops.convert_to_tensor(boxes)
        if len(boxes.shape) != 3 or boxes.shape[-1] != 4:
            raise ValueError(
                f"boxes must be XYXY of shape (B, M, 4). Received: {tuple(boxes.shape)}"
            )
        batch, count = ops.shape(boxes)[0], ops.shape(boxes)[1]
        corners = ops.reshape(boxes, (batch, 2 * count, 2))
        labels = ops.tile(
            ops.convert_to_tensor([[LABEL_BOX_TOP_LEFT, LABEL_BOX_BOTTOM_RIGHT]]), (batch, count)
        )
        return self.embed_points(corners, labels)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embed_dim": self.embed_dim,
            "image_embedding_size": self.image_embedding_size,
            "input_image_size": self.input_image_size,
            "mask_in_chans": self.mask_in_chans,
        }


def _as_batch_of_points(points: Any) -> tuple[Any, Any]:
    if not isinstance(points, (tuple, list)) or len(points) != 2:
        raise ValueError(
            f"points must be a pair (coords, labels). Received: {type(points).__name__}"
        )
    coords, labels = (ops.convert_to_tensor(part) for part in points)
    if len(coords.shape) == 2 and len(labels.shape) == 1:
        coords, labels = coords[None], labels[None]
    if len(coords.shape) != 3 or coords.shape[-1] != 2 or len(labels.shape) != 2:
        raise ValueError(
            "points must be coords (B, N, 2) with labels (B, N). "
            f"Received: {tuple(coords.shape)} with {tuple(labels.shape)}"
        )
    if None not in (*coords.shape[:2], *labels.shape) and (
        tuple(coords.shape[:2]) != tuple(labels.shape)
    ):
        raise ValueError(
            "Every point needs one label: coords (B, N, 2) with labels (B, N). "
            f"Received: {tuple(coords.shape)} with {tuple(labels.shape)}"
        )
    return ops.cast(coords, "float32"), ops.cast(labels, "int32")


def _with_padding_point(coords: Any, labels: Any) -> tuple[Any, Any]:
    padding = ops.zeros_like(coords[:, :1])
    no_label = ops.full_like(labels[:, :1], LABEL_NOT_A_POINT)
    return ops.concatenate([coords, padding], axis=1), ops.concatenate([labels, no_label], axis=1)
