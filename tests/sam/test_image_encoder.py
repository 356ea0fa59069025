from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.sam import rel_pos_attention
from amg_pipeline.sam.image_encoder import (
    Block,
    ImageEncoderViT,
    window_partition,
    window_unpartition,
)
from amg_pipeline.sam.rel_pos_attention import RelPosAttention
from tests.sam.small_sam import as_arrays, randomize

ENCODER = {
    "img_size": 32,
    "patch_size": 8,
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 3,
    "out_chans": 8,
    "window_size": 3,
    "global_attn_indexes": (1,),
}


def make_encoder(**changes: Any) -> ImageEncoderViT:
    encoder = ImageEncoderViT(**{**ENCODER, **changes})
    encoder.build()
    randomize(encoder, seed=0)
    return encoder


def grid(height: int, width: int, channels: int, *, batch: int = 2) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, height, width, channels)).astype(np.float32)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 6))
@settings(max_examples=25)
def test_window_partition_and_unpartition_are_inverse(height: int, width: int, size: int) -> None:
    x = grid(height, width, 2)
    windows = window_partition(ops.convert_to_tensor(x), size)
    per_image = -(-height // size) * -(-width // size)
    assert windows.shape == (2 * per_image, size, size, 2)
    np.testing.assert_array_equal(as_arrays(window_unpartition(windows, size, height, width)), x)


def test_window_partition_goes_row_by_row_and_pads_with_zeros() -> None:
    x = np.arange(1, 21, dtype=np.float32).reshape(1, 4, 5, 1)
    windows = as_arrays(window_partition(ops.convert_to_tensor(x), 3))[..., 0]
    np.testing.assert_array_equal(windows[0], x[0, :3, :3, 0])
    np.testing.assert_array_equal(windows[1], np.pad(x[0, :3, 3:, 0], ((0, 0), (0, 1))))
    np.testing.assert_array_equal(windows[2], np.pad(x[0, 3:, :3, 0], ((0, 2), (0, 0))))
    np.testing.assert_array_equal(windows[3], np.pad(x[0, 3:, 3:, 0], ((0, 2), (0, 1))))


def plain_attention(layer: RelPosAttention, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute attention query by query and key by key, as the paper's formula has it."""
    height, width = layer.grid_size
    weights = {v.path.split("/", 1)[1]: v for v in layer.variables}
    values = {name: as_arrays(v.value).astype(np.float64) for name, v in weights.items()}
    qkv = x.reshape(-1, height * width, layer.dim) @ values["qkv/kernel"] + values["qkv/bias"]
    queries, keys, contents = np.split(qkv, 3, axis=-1)
    heads = np.zeros_like(queries)
    size = layer.head_dim
    for n in range(len(x)):
        for h in range(layer.num_heads):
            some = slice(h * size, (h + 1) * size)
            for s in range(height * width):
                query = queries[n, s, some]
                logits = np.zeros(height * width)
                for t in range(height * width):
                    rows, columns = s // width - t // width, s % width - t % width
                    logits[t] = query @ keys[n, t, some] / np.sqrt(size)
                    if layer.use_rel_pos:
                        logits[t] += query @ values["rel_pos_h"][rows + height - 1]
                        logits[t] += query @ values["rel_pos_w"][columns + width - 1]
                exponents = np.exp(logits - logits.max())
                heads[n, s, some] = exponents / exponents.sum() @ contents[n, :, some]
    attended = heads @ values["proj/kernel"] + values["proj/bias"]
    return np.asarray(attended.reshape(-1, height, width, layer.dim), np.float64)


@pytest.mark.parametrize("use_rel_pos", [True, False])
def test_attention_equals_the_plain_formula(use_rel_pos: bool) -> None:
    attention = RelPosAttention(6, 2, (3, 4), use_rel_pos=use_rel_pos)
    attention.build((None, 3, 4, 6))
    randomize(attention, seed=0)
    x = grid(3, 4, 6)
    expected = plain_attention(attention, x)
    np.testing.assert_allclose(as_arrays(attention(x)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("use_rel_pos", [True, False])
@pytest.mark.parametrize(
    ("small", "at_once"),
    [pytest.param(1, 10**6, id="grid-by-grid"), pytest.param(1, 1, id="head-by-head-in-rows")],
)
def test_attention_in_turns_equals_attention_at_once(
    use_rel_pos: bool, small: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = RelPosAttention(12, 3, (4, 6), use_rel_pos=use_rel_pos)
    layer.build((None, 4, 6, 12))
    randomize(layer, seed=0)
    x = grid(4, 6, 12)
    expected = as_arrays(layer(x))
    monkeypatch.setattr(rel_pos_attention, "_SMALL_LOGITS", small)
    monkeypatch.setattr(rel_pos_attention, "_LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr(rel_pos_attention, "_QUERIES_AT_ONCE", (9, 8, 1))
    np.testing.assert_allclose(as_arrays(layer(x)), expected, atol=1e-6)


def test_windows_are_padded_after_the_projection_as_before_it() -> None:
    block = Block(12, 3, (5, 7), window_size=3)
    block.build(None)
    randomize(block, seed=0)
    x = grid(5, 7, 12)
    windows = window_partition(block.norm1(x), 3)
    attended = window_unpartition(block.attn(windows), 3, 5, 7)
    inner = x + as_arrays(attended)
    expected = inner + as_arrays(block.mlp(block.norm2(inner)))
    np.testing.assert_allclose(as_arrays(block(x)), expected, atol=1e-5)


def test_attention_without_qkv_bias_has_none() -> None:
    attention = RelPosAttention(6, 2, (3, 4), qkv_bias=False)
    attention.build((None, 3, 4, 6))
    assert attention.qkv.bias is None
    assert attention.proj.bias is not None


def test_attention_refuses_heads_that_do_not_divide_the_width() -> None:
    with pytest.raises(ValueError, match=r"num_heads must divide dim.*dim=10, num_heads=4"):
        RelPosAttention(10, 4, (2, 2))


def test_windowed_block_sees_only_its_window() -> None:
    block = Block(6, 2, (6, 6), window_size=3)
    block.build((None, 6, 6, 6))
    randomize(block, seed=0)
    x = grid(6, 6, 6, batch=1)
    changed = x.copy()
    changed[0, 0, 0, 0] += 1.0
    difference = as_arrays(block(changed)) - as_arrays(block(x))
    reached = np.abs(difference).max(axis=-1)[0] > 1e-6
    assert reached[:3, :3].all()
    assert not reached[3:].any()
    assert not reached[:, 3:].any()


def test_global_block_sees_everything() -> None:
    block = Block(6, 2, (6, 6), window_size=0)
    block.build((None, 6, 6, 6))
    randomize(block, seed=0)
    x = grid(6, 6, 6, batch=1)
    changed = x.copy()
    changed[0, 0, 0, 0] += 1.0
    difference = as_arrays(block(changed)) - as_arrays(block(x))
    assert (np.abs(difference).max(axis=-1) > 1e-6).all()


def test_encoder_embeds_on_the_grid() -> None:
    encoder = make_encoder()
    embedding = encoder(grid(32, 32, 3))
    assert embedding.shape == (2, 4, 4, 8)
    assert encoder.compute_output_shape((5, 32, 32, 3)) == (5, 4, 4, 8)
    assert encoder.compute_output_shape() == (None, 4, 4, 8)
    # The last norm has a random gain and offset, and nothing after it.
    assert np.isfinite(as_arrays(embedding)).all()


def test_encoder_embeds_the_images_of_a_batch_independently() -> None:
    encoder = make_encoder()
    images = grid(32, 32, 3)
    both = as_arrays(encoder(images))
    for i in range(2):
        np.testing.assert_allclose(as_arrays(encoder(images[i : i + 1]))[0], both[i], atol=1e-5)
    assert np.abs(both[0] - both[1]).max() > 0.1


def test_encoder_marks_the_global_blocks() -> None:
    encoder = make_encoder(depth=4, global_attn_indexes=(1, 3))
    assert [block.window_size for block in encoder.blocks] == [3, 0, 3, 0]
    assert [block.attn.grid_size for block in encoder.blocks] == [(3, 3), (4, 4)] * 2


def test_encoder_of_window_size_zero_is_global_throughout() -> None:
    encoder = make_encoder(window_size=0, global_attn_indexes=())
    assert [block.attn.grid_size for block in encoder.blocks] == [(4, 4), (4, 4)]


@pytest.mark.parametrize("absent", ["use_abs_pos", "use_rel_pos"])
def test_encoder_without_positions_has_no_variable_for_them(absent: str) -> None:
    encoder = make_encoder(**{absent: False})
    paths = " ".join(variable.path for variable in encoder.variables)
    assert ("pos_embed" in paths) is (absent != "use_abs_pos")
    assert ("rel_pos_h" in paths) is (absent != "use_rel_pos")
    assert encoder(grid(32, 32, 3)).shape == (2, 4, 4, 8)


def test_encoder_uses_its_absolute_positions() -> None:
    encoder = make_encoder()
    image = grid(32, 32, 3, batch=1)
    before = as_arrays(encoder(image))
    encoder.pos_embed.assign(np.zeros(encoder.pos_embed.shape))
    assert np.abs(as_arrays(encoder(image)) - before).max() > 0.1


def test_encoder_layers_go_from_input_to_output_and_can_be_frozen() -> None:
    encoder = make_encoder()
    assert encoder.layers == [encoder.patch_embed, *encoder.blocks, *encoder.neck]
    trainable = len(encoder.trainable_variables)
    for layer in encoder.layers[-4:]:
        layer.trainable = False
    # Two convolutions without bias and two norms.
    assert len(encoder.trainable_variables) == trainable - 6


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((1, 32, 24, 3), id="not-padded"),
        pytest.param((32, 32, 3), id="no-batch"),
        pytest.param((1, 32, 32, 4), id="four-channels"),
    ],
)
def test_encoder_refuses_images_that_are_not_preprocessed(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, 32, 32, 3\); call SAM.preprocess") as caught:
        make_encoder()(np.zeros(shape, np.float32))
    assert f"Received: {shape}" in str(caught.value)


def test_encoder_refuses_a_patch_that_does_not_divide_the_image() -> None:
    with pytest.raises(ValueError, match=r"patch_size must divide img_size.*img_size=30"):
        ImageEncoderViT(img_size=30, patch_size=16)


@pytest.mark.parametrize(
    "layer",
    [
        RelPosAttention(6, 2, (4, 4), qkv_bias=False, use_rel_pos=False, name="attention"),
        Block(6, 2, (4, 4), mlp_ratio=3.0, window_size=2, name="block"),
        ImageEncoderViT(**ENCODER, mlp_ratio=3.0, use_abs_pos=False, dtype="mixed_bfloat16"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_config_round_trip_gives_an_equal_layer(layer: keras.layers.Layer) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    x = grid(32, 32, 3) if isinstance(layer, ImageEncoderViT) else grid(4, 4, 6)
    expected = as_arrays(layer(x))
    if not again.built:
        again(x)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(as_arrays(again(x)), expected)


def test_encoder_config_is_flat_with_the_constructor_arguments() -> None:
    config = make_encoder().get_config()
    for name, value in ENCODER.items():
        assert config[name] == value
    assert (config["in_chans"], config["mlp_ratio"], config["qkv_bias"]) == (3, 4.0, True)
    assert (config["use_abs_pos"], config["use_rel_pos"]) == (True, True)
