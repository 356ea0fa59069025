from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.sam.transformer import Attention, TwoWayAttentionBlock, TwoWayTransformer
from tests.sam.small_sam import as_arrays, randomize

CHANNELS = 16


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def built(layer: keras.layers.Layer) -> Any:
    layer.build()
    randomize(layer, seed=0)
    return layer


def dense(layer: keras.layers.Dense, x: NDArray[Any]) -> NDArray[np.float64]:
    kernel, bias = as_arrays([layer.kernel, layer.bias])
    return np.asarray(x.astype(np.float64) @ kernel + bias, np.float64)


def plain_attention(
    layer: Attention, q: NDArray[Any], k: NDArray[Any], v: NDArray[Any]
) -> NDArray[np.float64]:
    """Attend head by head, for one prompt."""
    query, key, value = dense(layer.q_proj, q), dense(layer.k_proj, k), dense(layer.v_proj, v)
    size = layer.internal_dim // layer.num_heads
    heads = []
    for h in range(layer.num_heads):
        some = slice(h * size, (h + 1) * size)
        exponents = np.exp(query[:, some] @ key[:, some].T / np.sqrt(size))
        heads.append(exponents / exponents.sum(axis=1, keepdims=True) @ value[:, some])
    return dense(layer.out_proj, np.concatenate(heads, axis=1))


@pytest.mark.parametrize("downsample_rate", [1, 2])
def test_attention_equals_the_plain_formula(downsample_rate: int) -> None:
    layer = built(Attention(CHANNELS, 4, downsample_rate))
    assert layer.internal_dim == CHANNELS // downsample_rate
    q, k, v = normal(3, 5, CHANNELS), normal(3, 7, CHANNELS), normal(3, 7, CHANNELS, seed=1)
    actual = as_arrays(layer(q, k, v))
    for i in range(3):
        np.testing.assert_allclose(actual[i], plain_attention(layer, q[i], k[i], v[i]), atol=1e-5)


def test_attention_shares_one_image_among_prompts() -> None:
    layer = built(Attention(CHANNELS, 4, 2))
    tokens, image = normal(3, 5, CHANNELS), normal(1, 7, CHANNELS)
    repeated = np.repeat(image, 3, axis=0)
    np.testing.assert_allclose(
        as_arrays(layer(tokens, image, image)),
        as_arrays(layer(tokens, repeated, repeated)),
        atol=1e-6,
    )


def test_attention_refuses_heads_that_do_not_divide_the_inner_width() -> None:
    with pytest.raises(ValueError, match=r"num_heads=8, embedding_dim=24, downsample_rate=2"):
        Attention(24, 8, 2)


def norm(layer: keras.layers.LayerNormalization, x: NDArray[Any]) -> NDArray[np.float64]:
    gamma, beta = as_arrays([layer.gamma, layer.beta])
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return np.asarray(scaled * gamma + beta, np.float64)


def plain_block(
    block: TwoWayAttentionBlock,
    tokens: NDArray[Any],
    image: NDArray[Any],
    token_pe: NDArray[Any],
    image_pe: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Follow the paper's four steps, for one prompt."""
    if block.skip_first_layer_pe:
        tokens = plain_attention(block.self_attn, tokens, tokens, tokens)
    else:
        with_pe = tokens + token_pe
        tokens = tokens + plain_attention(block.self_attn, with_pe, with_pe, tokens)
    tokens = norm(block.norm1, tokens)
    attended = plain_attention(
        block.cross_attn_token_to_image, tokens + token_pe, image + image_pe, image
    )
    tokens = norm(block.norm2, tokens + attended)
    hidden = np.maximum(dense(block.mlp.lin1, tokens), 0.0)
    tokens = norm(block.norm3, tokens + dense(block.mlp.lin2, hidden))
    attended = plain_attention(
        block.cross_attn_image_to_token, image + image_pe, tokens + token_pe, tokens
    )
    return tokens, norm(block.norm4, image + attended)


@pytest.mark.parametrize("skip_first_layer_pe", [True, False])
def test_block_follows_the_papers_steps(skip_first_layer_pe: bool) -> None:
    block = built(
        TwoWayAttentionBlock(CHANNELS, 4, mlp_dim=20, skip_first_layer_pe=skip_first_layer_pe)
    )
    arrays = (
        normal(1, 5, CHANNELS),
        normal(1, 6, CHANNELS),
        normal(1, 5, CHANNELS, seed=1),
        normal(1, 6, CHANNELS, seed=1),
    )
    tokens, image = as_arrays(block(*arrays))
    expected = plain_block(block, *(array[0] for array in arrays))
    np.testing.assert_allclose(tokens[0], expected[0], atol=1e-4)
    np.testing.assert_allclose(image[0], expected[1], atol=1e-4)


def test_transformer_is_its_blocks_and_a_last_look_at_the_image() -> None:
    transformer = built(TwoWayTransformer(depth=2, embedding_dim=CHANNELS, num_heads=4, mlp_dim=20))
    image, image_pe = normal(2, 2, 3, CHANNELS), normal(2, 3, CHANNELS)
    points = normal(2, 5, CHANNELS)
    tokens, keys = as_arrays(transformer(image, image_pe, points))
    flat_pe = image_pe.reshape(6, CHANNELS)
    assert [block.skip_first_layer_pe for block in transformer.layers] == [True, False]
    for i in range(2):
        queries: NDArray[Any] = points[i]
        expected_keys: NDArray[Any] = image[i].reshape(6, CHANNELS)
        for block in transformer.layers:
            queries, expected_keys = plain_block(block, queries, expected_keys, points[i], flat_pe)
        attended = plain_attention(
            transformer.final_attn_token_to_image,
            queries + points[i],
            expected_keys + flat_pe,
            expected_keys,
        )
        queries = norm(transformer.norm_final_attn, queries + attended)
        np.testing.assert_allclose(tokens[i], queries, atol=1e-4)
        np.testing.assert_allclose(keys[i], expected_keys, atol=1e-4)


def test_transformer_takes_positions_with_and_without_batch_and_a_shared_image() -> None:
    transformer = built(TwoWayTransformer(depth=1, embedding_dim=CHANNELS, num_heads=4, mlp_dim=20))
    image, image_pe = normal(1, 2, 3, CHANNELS), normal(2, 3, CHANNELS)
    points = normal(4, 5, CHANNELS)
    expected = as_arrays(transformer(np.repeat(image, 4, axis=0), image_pe, points))
    for pe in (image_pe, image_pe[None]):
        for actual, wanted in zip(as_arrays(transformer(image, pe, points)), expected, strict=True):
            assert actual.shape == wanted.shape
            np.testing.assert_allclose(actual, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "arguments"),
    [
        (Attention(CHANNELS, 4, 2, name="attention"), 3),
        (
            TwoWayAttentionBlock(CHANNELS, 4, 20, 4, skip_first_layer_pe=True, name="block"),
            4,
        ),
        (TwoWayTransformer(1, CHANNELS, 2, 20, 4, name="transformer"), 0),
    ],
    ids=["attention", "block", "transformer"],
)
def test_config_round_trip_gives_an_equal_layer(layer: Any, arguments: int) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    layer.build()
    again.build()
    again.set_weights(layer.get_weights())
    tensors = [ops.convert_to_tensor(normal(1, 4, CHANNELS, seed=i)) for i in range(arguments)]
    if not tensors:
        tensors = [normal(1, 2, 3, CHANNELS), normal(2, 3, CHANNELS), normal(1, 4, CHANNELS)]
    for actual, expected in zip(
        keras.tree.flatten(as_arrays(again(*tensors))),
        keras.tree.flatten(as_arrays(layer(*tensors))),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, expected)
