from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import erf

from amg_pipeline.sam.mlp import MLP, MLPBlock
from tests.sam.small_sam import as_arrays, randomize

Array = NDArray[np.float64]


def dense(layer: keras.layers.Dense, x: Array) -> Array:
    kernel, bias = as_arrays([layer.kernel, layer.bias])
    return np.asarray(x @ kernel.astype(np.float64) + bias, np.float64)


def exact_gelu(x: Array) -> Array:
    return np.asarray(x * 0.5 * (1.0 + erf(x / math.sqrt(2.0))), np.float64)


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


@pytest.mark.parametrize(("activation", "function"), [("gelu", exact_gelu), ("relu", relu)])
def test_mlp_block_is_two_dense_layers_with_the_activation_between(activation, function) -> None:
    block = MLPBlock(6, 10, activation)
    block.build((None, 6))
    randomize(block, seed=0)
    x = np.random.default_rng(1).normal(0, 2, (5, 6))
    expected = dense(block.lin2, function(dense(block.lin1, x)))
    np.testing.assert_allclose(as_arrays(block(x)), expected, rtol=1e-5, atol=1e-5)


def test_mlp_block_keeps_the_shape_of_a_grid_and_refuses_another_width() -> None:
    block = MLPBlock(6, 10)
    block.build((None, 2, 3, 6))
    randomize(block, seed=0)
    x = np.random.default_rng(1).normal(0, 2, (4, 2, 3, 6))
    flat = as_arrays(block(x.reshape(-1, 6)))
    np.testing.assert_allclose(as_arrays(block(x)), flat.reshape(x.shape), rtol=1e-6, atol=1e-6)
    with pytest.raises(Exception, match="12"):
        block(np.ones((2, 3, 12), np.float32))


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_mlp_has_relu_between_layers_and_none_at_the_end(num_layers: int) -> None:
    mlp = MLP(6, 9, 4, num_layers)
    mlp.build((None, 6))
    randomize(mlp, seed=0)
    x = expected = np.random.default_rng(1).normal(0, 2, (5, 6))
    for i, layer in enumerate(mlp.layers):
        expected = dense(layer, expected)
        if i < num_layers - 1:
            expected = relu(expected)
    assert len(mlp.layers) == num_layers
    assert expected.min() < 0 < expected.max()
    np.testing.assert_allclose(as_arrays(mlp(x)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer", [MLPBlock(6, 10, "relu", name="block"), MLP(6, 9, 4, 3, name="head")]
)
def test_config_round_trip_gives_an_equal_layer(layer: keras.layers.Layer) -> None:
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    layer.build((None, 6))
    again.build((None, 6))
    again.set_weights(layer.get_weights())
    x = np.random.default_rng(1).normal(0, 2, (5, 6))
    np.testing.assert_array_equal(as_arrays(again(x)), as_arrays(layer(x)))
