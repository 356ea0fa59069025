"""The mask decoder: tokens and image to mask logits and a score for each mask.

Shapes: `P` prompts, `T` prompt tokens, `K` mask tokens (the single mask first, then the multimask
outputs), `H W` embedding grid, `C` channels. The steps of `call` are public, so that a caller can
score many prompts and make masks of only a few: `attend` -> `predict_iou`, `mask_weights` ->
`mask_logits`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from amg_pipeline.sam.grid_parts import GridParts
from amg_pipeline.sam.image_side import ImageSide
from amg_pipeline.sam.low_rank_image import LowRankImage
from amg_pipeline.sam.mlp import MLP
from amg_pipeline.sam.transformer import TwoWayTransformer


@keras.saving.register_keras_serializable(package="amg_pipeline")
class MaskDecoder(keras.layers.Layer):
    """Predicts masks and their quality from image and prompt embeddings.

    Called with the keywords `image_embeddings` `(P or 1, H, W, C)`, `image_pe` `(H, W, C)` or
    `(1, H, W, C)`, `sparse_prompt_embeddings` `(P, T, C)`, `dense_prompt_embeddings`
    `(P or 1, H, W, C)` and `multimask_output`, a bool or, while a graph is traced, a scalar tensor.
    An embedding of batch 1 is shared by all prompts.
    Returns logits `(P, K', 4 H, 4 W)` and predicted IoU `(P, K')`, both float32 whatever the
    policy, K' being `num_multimask_outputs` or 1.

    Args:
        transformer_dim: Channels of the embeddings.
        transformer: The two-way transformer; None makes the published one.
        num_multimask_outputs: Masks of one prompt when several are asked for.
        iou_head_depth: Dense layers of the head that predicts a mask's IoU.
        iou_head_hidden_dim: Hidden width of that head.

    Source: Kirillov et al. 2023 (arXiv:2304.02643), appendix A; `MaskDecoder` of the reference.
    """

    def __init__(
        self,
        transformer_dim: int = 256,
        transformer: TwoWayTransformer | None = None,
        num_multimask_outputs: int = 3,
        iou_head_depth: int = 3,
        iou_head_hidden_dim: int = 256,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.transformer_dim = transformer_dim
        self.transformer = transformer or TwoWayTransformer(
            embedding_dim=transformer_dim, dtype=self.dtype_policy, name="transformer"
        )
        if self.transformer.embedding_dim != transformer_dim:
            raise ValueError(
                "transformer.embedding_dim must equal transformer_dim. "
                f"Received: {self.transformer.embedding_dim} and {transformer_dim}"
            )
        self.num_multimask_outputs = num_multimask_outputs
        self.num_mask_tokens = num_multimask_outputs + 1
        self.iou_head_depth = iou_head_depth
        self.iou_head_hidden_dim = iou_head_hidden_dim
        self.output_upscaling = [
            self._transposed(transformer_dim // 4, "output_upscaling_0"),
            keras.layers.LayerNormalization(
                epsilon=1e-6, dtype=self.dtype_policy, name="output_upscaling_1"
            ),
            self._transposed(transformer_dim // 8, "output_upscaling_3"),
        ]
        # Heads in float32: half precision would round logits and scores by more than a threshold.
        self.output_hypernetworks_mlps = [
            MLP(
                transformer_dim,
                transformer_dim,
                transformer_dim // 8,
                3,
                dtype="float32",
                name=f"output_hypernetworks_mlps_{i}",
            )
            for i in range(self.num_mask_tokens)
        ]
        self.iou_prediction_head = MLP(
            transformer_dim,
            iou_head_hidden_dim,
            self.num_mask_tokens,
            iou_head_depth,
            dtype="float32",
            name="iou_prediction_head",
        )

    def _transposed(self, filters: int, name: str) -> keras.layers.Layer:
        return keras.layers.Conv2DTranspose(
            filters,
            2,
            strides=2,
            data_format="channels_last",
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape: Any = None) -> None:
        normal = keras.initializers.RandomNormal(stddev=1.0)
        self.iou_token = self.add_weight(
            shape=(1, self.transformer_dim), initializer=normal, name="iou_token"
        )
        self.mask_tokens = self.add_weight(
            shape=(self.num_mask_tokens, self.transformer_dim),
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="mask_tokens",
        )
        if not self.transformer.built:
            self.transformer.build()
        first, norm, second = self.output_upscaling
        first.build((None, None, None, self.transformer_dim))
        norm.build((None, None, None, self.transformer_dim // 4))
        second.build((None, None, None, self.transformer_dim // 4))
        for mlp in (*self.output_hypernetworks_mlps, self.iou_prediction_head):
            mlp.build((None, self.transformer_dim))
        self.built = True

    def call(
        self,
        image_embeddings: Any,
        image_pe: Any,
        sparse_prompt_embeddings: Any,
        dense_prompt_embeddings: Any,
        multimask_output: Any = True,
    ) -> tuple[Any, Any]:
        tokens, image = self.attend(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings
        )
        chosen = self._chosen_masks(multimask_output)
        weights = self.mask_weights(tokens)[:, chosen]
        grid = tuple(image_embeddings.shape[1:3])
        logits = self.mask_logits(weights, image, GridParts(grid, grid))
        return logits, self.predict_iou(tokens)[:, chosen]

    def attend(
        self,
        image_embeddings: Any,
        image_pe: Any,
        sparse_prompt_embeddings: Any,
        dense_prompt_embeddings: Any,
    ) -> tuple[Any, ImageSide]:
        """Run the transformer: tokens `(P, 1 + K + T, C)` and the image as prompts left it."""
        tokens = self.prompt_tokens(sparse_prompt_embeddings)
        image = self.image_side(
            ops.add(image_embeddings, dense_prompt_embeddings), image_pe, tokens.shape[1]
        )
        return self.transformer.attend(image, tokens)

    def image_side(self, image_embeddings: Any, image_pe: Any, num_tokens: int | None) -> ImageSide:
        """Prepare embeddings `(P or 1, H, W, C)` for prompts of so many tokens, once an image."""
        side = self.transformer.image_side(image_embeddings, image_pe, num_tokens)
        if isinstance(side, LowRankImage):
            return LowRankImage(side.prepared(self._centred_blocks()[0]))
        return side

    def prompt_tokens(self, sparse_prompt_embeddings: Any) -> Any:
        """Put the learned tokens before the prompts' `(P, T, C)`: `(P, 1 + K + T, C)`."""
        learned = ops.concatenate([self.iou_token, self.mask_tokens], axis=0)
        prompts = ops.shape(sparse_prompt_embeddings)[0]
        learned = ops.broadcast_to(
            learned[None], (prompts, 1 + self.num_mask_tokens, self.transformer_dim)
        )
        learned = ops.cast(learned, sparse_prompt_embeddings.dtype)
        return ops.concatenate([learned, sparse_prompt_embeddings], axis=1)

    def predict_iou(self, tokens: Any) -> Any:
        """Estimate the IoU of all `K` masks from the tokens, float32 `(P, K)`."""
        return self.iou_prediction_head(tokens[:, 0])

    def mask_weights(self, tokens: Any) -> Any:
        """Turn each mask token into the weights of its last layer, float32 `(P, K, C / 8)`."""
        return self.weights_of_masks(tokens[:, 1 : 1 + self.num_mask_tokens])

    def weights_of_masks(self, mask_tokens: Any, *, first: int = 0) -> Any:
        """As `mask_weights`, of the mask tokens alone, `(P, K - first, C)` from the given one."""
        mlps = self.output_hypernetworks_mlps[first:]
        return ops.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(mlps)], axis=1)

    def mask_logits(self, weights: Any, image: ImageSide, parts: GridParts) -> Any:
        """Make masks.

        Args:
            weights: As `mask_weights` gives them, some or all, `(P, K, C / 8)`.
            image: The image as the prompts left it.
            parts: How its grid is cut to be upscaled; logits of parts that are not wanted are 0.

        Returns:
            float32 logits `(P, K, 4 H, 4 W)`.
        """
        finish = self._upscaling()
        of_pixels = ops.transpose(weights, (0, 2, 1))
        (rows, columns), (prompts, masks, _) = parts.part, ops.shape(weights)

        def apply(projected: Any) -> Any:
            pixels = ops.cast(finish(projected), "float32")
            features = ops.reshape(pixels, (-1, pixels.shape[1] * 16, pixels.shape[-1]))
            # Nothing is moved before it is so few numbers: blocks in blocks.
            blocks = ops.reshape(
                ops.matmul(features, of_pixels), (-1, rows, columns, 2, 2, 2, 2, masks)
            )
            rows_first = ops.transpose(blocks, (0, 7, 1, 3, 5, 2, 4, 6))
            return ops.reshape(rows_first, (-1, masks, 4 * rows, 4 * columns))

        blank = ops.zeros((prompts, masks, 4 * rows, 4 * columns), dtype="float32")
        kernel = self._centred_blocks()[0]
        return parts.join(image.map_projected(kernel, apply, parts, blank))

    def upscale(self, image: ImageSide) -> Any:
        """Upscale each position to its 4 x 4 pixels.

        A transposed convolution whose stride is its kernel's size turns each position into a block
        of its own, so both are products with a matrix.

        Returns:
            `(P, S, 16, C / 8)`: the pixels of each position, those of the first convolution
            (row, column) outside those of the second.
        """
        return image.map_projected(self._centred_blocks()[0], self._upscaling())

    def _upscaling(self) -> Callable[[Any], Any]:
        """Give the function that upscales what the first convolution's centred kernel gave.

        `(P, S, C)` to `(P, S, 16, C / 8)`. Kernels are laid out here, once for all parts.
        """
        _, norm, second = self.output_upscaling
        bias, kernel = self._centred_blocks()[1], _block_kernel(second)

        def finish(projected: Any) -> Any:
            x = projected + ops.cast(bias, projected.dtype)
            # Flat, because products of other ranks are slow on some backends.
            x = ops.reshape(x, (-1, self.transformer_dim // 4))
            variance = ops.mean(ops.square(ops.cast(x, "float32")), axis=-1, keepdims=True)
            x = x * ops.cast(ops.rsqrt(variance + norm.epsilon), x.dtype)
            x = x * ops.cast(norm.gamma, x.dtype) + ops.cast(norm.beta, x.dtype)
            x = ops.matmul(_gelu(x), ops.cast(kernel, x.dtype))
            x = ops.reshape(x, (-1, projected.shape[1], 16, self.transformer_dim // 8))
            return _gelu(x + ops.cast(second.bias, x.dtype))

        return finish

    def _centred_blocks(self) -> tuple[Any, Any]:
        """Give the first convolution so that each sub-pixel's channels have a mean of zero.

        The norm after it would subtract the mean; of the kernel it is subtracted once for all.
        """
        first = self.output_upscaling[0]
        kernel = ops.reshape(
            _block_kernel(first), (self.transformer_dim, 4, self.transformer_dim // 4)
        )
        kernel = kernel - ops.mean(kernel, axis=-1, keepdims=True)
        bias = first.bias - ops.mean(first.bias)
        return ops.reshape(kernel, (self.transformer_dim, -1)), ops.tile(bias, 4)

    def _chosen_masks(self, multimask_output: Any) -> slice:
        if isinstance(multimask_output, bool):
            return slice(1, None) if multimask_output else slice(0, 1)
        first = ops.cast(multimask_output, "int32")
        return slice(first, 1 + first * self.num_multimask_outputs)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "transformer_dim": self.transformer_dim,
            "transformer": keras.saving.serialize_keras_object(self.transformer),
            "num_multimask_outputs": self.num_multimask_outputs,
            "iou_head_depth": self.iou_head_depth,
            "iou_head_hidden_dim": self.iou_head_hidden_dim,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> MaskDecoder:
        transformer = keras.saving.deserialize_keras_object(config["transformer"])
        return cls(**{**config, "transformer": transformer})


def _block_kernel(convolution: keras.layers.Conv2DTranspose) -> Any:
    """Give the kernel `(k, k, out, in)` as a matrix from channels to blocks, `(in, k k out)`."""
    *_, channels = convolution.kernel.shape
    return ops.reshape(ops.transpose(convolution.kernel, (3, 0, 1, 2)), (channels, -1))


def _gelu(x: Any) -> Any:
    """Exact GELU; written out, since XLA makes it twice as fast as its own."""
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))
