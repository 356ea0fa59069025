"""The two perceptrons of SAM: the transformer's MLP block and the heads' plain MLP."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="amg_pipeline")
class MLPBlock(keras.layers.Layer):
    """Two dense layers with an activation between them, back to the input's width.

    Args:
        embedding_dim: Width of input and output.
        mlp_dim: Width in between.
        activation: `"gelu"` (exact, with erf) in the image encoder, `"relu"` in the decoder.

    Source: `modeling/common.py` of the reference.
    """

    def __init__(
        self, embedding_dim: int, mlp_dim: int, activation: str = "gelu", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.embedding_dim = embedding_dim
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.lin1 = keras.layers.Dense(mlp_dim, dtype=self.dtype_policy, name="lin1")
        self.lin2 = keras.layers.Dense(embedding_dim, dtype=self.dtype_policy, name="lin2")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.lin1.build((*input_shape[:-1], self.embedding_dim))
        self.lin2.build((*input_shape[:-1], self.mlp_dim))
        self.built = True

    def call(self, x: Any) -> Any:
        # Flat, because TensorFlow fuses a product with bias and activation only of rank 2.
        hidden = self.lin1(ops.reshape(x, (-1, x.shape[-1])))
        if self.activation == "gelu":
            hidden = ops.gelu(hidden, approximate=False)
        else:
            hidden = ops.relu(hidden)
        return ops.reshape(self.lin2(hidden), ops.shape(x))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim": self.embedding_dim,
            "mlp_dim": self.mlp_dim,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable(package="amg_pipeline")
class MLP(keras.layers.Layer):
    """A perceptron with ReLU between its layers and none after the last.

    Args:
        input_dim: Width of the input.
        hidden_dim: Width of all layers but the last.
        output_dim: Width of the output.
        num_layers: Number of dense layers.

    Source: `MLP` in `modeling/mask_decoder.py` of the reference.
    """

    def __init__(
        self, input_dim: int, hidden_dim: int, output_dim: int, num_layers: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.input_dim = input_dim
        self.hidden_dim = hidden_dim
        self.output_dim = output_dim
        self.num_layers = num_layers
        widths = [hidden_dim] * (num_layers - 1) + [output_dim]
        self.layers = [
            keras.layers.Dense(width, dtype=self.dtype_policy, name=f"layers_{i}")
            for i, width in enumerate(widths)
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        width = self.input_dim
        for layer in self.layers:
            layer.build((*input_shape[:-1], width))
            width = layer.units
        self.built = True

    def call(self, x: Any) -> Any:
        for layer in self.layers[:-1]:
            x = ops.relu(layer(x))
        return self.layers[-1](x)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "hidden_dim": self.hidden_dim,
            "output_dim": self.output_dim,
            "num_layers": self.num_layers,
        }
