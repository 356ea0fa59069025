from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray
from scipy.special import erf

from amg_pipeline.sam.grid_parts import GridParts
from amg_pipeline.sam.image_side import DenseImage
from amg_pipeline.sam.mask_decoder import MaskDecoder
from amg_pipeline.sam.transformer import TwoWayTransformer
from tests.sam.small_sam import as_arrays, randomize

CHANNELS, GRID, PROMPTS, TOKENS = 16, 4, 3, 2


def make_decoder(**changes: Any) -> MaskDecoder:
    decoder = MaskDecoder(
        CHANNELS,
        TwoWayTransformer(1, CHANNELS, 4, 20, dtype=changes.get("dtype")),
        **{"iou_head_hidden_dim": 12, **changes},
    )
    decoder.build()
    randomize(decoder, seed=0)
    return decoder


@pytest.fixture(scope="module")
def decoder() -> MaskDecoder:
    return make_decoder()


def normal(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def embeddings(*, image_batch: int = 1, dense_batch: int = 1) -> dict[str, Any]:
    return {
        "image_embeddings": normal(image_batch, GRID, GRID, CHANNELS),
        "image_pe": normal(GRID, GRID, CHANNELS),
        "sparse_prompt_embeddings": normal(PROMPTS, TOKENS, CHANNELS),
        "dense_prompt_embeddings": normal(dense_batch, GRID, GRID, CHANNELS),
    }


def test_decoder_gives_three_masks_or_the_single_one(decoder: MaskDecoder) -> None:
    masks, scores = as_arrays(decoder(**embeddings()))
    single_mask, single_score = as_arrays(decoder(**embeddings(), multimask_output=False))
    assert (masks.shape, scores.shape) == ((PROMPTS, 3, 16, 16), (PROMPTS, 3))
    assert (single_mask.shape, single_score.shape) == ((PROMPTS, 1, 16, 16), (PROMPTS, 1))
    assert masks.dtype == scores.dtype == np.float32
    for i in range(3):
        assert np.abs(masks[:, i] - single_mask[:, 0]).max() > 0.01


def test_decoder_takes_the_choice_as_a_tensor_of_a_graph(decoder: MaskDecoder) -> None:
    inputs = embeddings()

    @tf.function(input_signature=[tf.TensorSpec((), tf.bool)])  # type: ignore[untyped-decorator]
    def decode(multimask: Any) -> Any:
        return decoder(**inputs, multimask_output=multimask)

    for choice in (True, False):
        expected = as_arrays(decoder(**inputs, multimask_output=choice))
        for actual, wanted in zip(as_arrays(decode(choice)), expected, strict=True):
            np.testing.assert_allclose(actual, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("image_batch", "dense_batch"), [(1, PROMPTS), (PROMPTS, 1), (PROMPTS, PROMPTS)]
)
def test_decoder_broadcasts_batches_of_one(
    decoder: MaskDecoder, image_batch: int, dense_batch: int
) -> None:
    inputs = embeddings(image_batch=image_batch, dense_batch=dense_batch)
    masks, scores = as_arrays(decoder(**inputs))
    for i in range(PROMPTS):
        one = {
            key: value[i : i + 1] if len(value) == PROMPTS and key != "image_pe" else value
            for key, value in inputs.items()
        }
        mask, score = as_arrays(decoder(**one))
        np.testing.assert_allclose(masks[i], mask[0], atol=1e-4)
        np.testing.assert_allclose(scores[i], score[0], atol=1e-4)


def test_decoder_takes_positions_with_a_batch_axis(decoder: MaskDecoder) -> None:
    inputs = embeddings()
    expected = as_arrays(decoder(**inputs))
    inputs["image_pe"] = inputs["image_pe"][None]
    for actual, wanted in zip(as_arrays(decoder(**inputs)), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)


def test_attend_puts_the_learned_tokens_first(decoder: MaskDecoder) -> None:
    inputs = embeddings()
    tokens, side = decoder.attend(**inputs)
    tokens, image = as_arrays([tokens, side.features()])
    learned = np.concatenate(as_arrays([decoder.iou_token, decoder.mask_tokens]))
    prompts = inputs["sparse_prompt_embeddings"]
    expected, expected_image = as_arrays(
        decoder.transformer(
            inputs["image_embeddings"] + inputs["dense_prompt_embeddings"],
            inputs["image_pe"],
            np.concatenate([np.repeat(learned[None], PROMPTS, axis=0), prompts], axis=1),
        )
    )
    assert tokens.shape == (PROMPTS, 1 + 4 + TOKENS, CHANNELS)
    np.testing.assert_allclose(tokens, expected, atol=1e-5)
    np.testing.assert_allclose(image, expected_image, atol=1e-5)


def test_scores_come_from_the_first_token_and_weights_from_the_next(decoder: MaskDecoder) -> None:
    tokens = normal(PROMPTS, 1 + 4 + TOKENS, CHANNELS)
    scores, weights = as_arrays([decoder.predict_iou(tokens), decoder.mask_weights(tokens)])
    np.testing.assert_allclose(
        scores, as_arrays(decoder.iou_prediction_head(tokens[:, 0])), atol=1e-6
    )
    assert weights.shape == (PROMPTS, 4, CHANNELS // 8)
    for i, mlp in enumerate(decoder.output_hypernetworks_mlps):
        np.testing.assert_allclose(weights[:, i], as_arrays(mlp(tokens[:, 1 + i])), atol=1e-6)


def transposed_convolution(layer: Any, x: NDArray[Any]) -> NDArray[np.float64]:
    """Each pixel becomes a block of 2 by 2."""
    kernel, bias = as_arrays([layer.kernel, layer.bias])  # (2, 2, out, in)
    height, width, _ = x.shape
    blocks = np.einsum("yxi,aboi->yaxbo", x, kernel.astype(np.float64))
    return np.asarray(blocks.reshape(2 * height, 2 * width, -1) + bias, np.float64)


def joined(upscaled: NDArray[Any]) -> NDArray[Any]:
    """Put the sub-pixels `(P, H W, 16, c)` of both convolutions in their places."""
    prompts, _, _, channels = upscaled.shape
    blocks = upscaled.reshape(prompts, GRID, GRID, 2, 2, 2, 2, channels)
    return blocks.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(prompts, 4 * GRID, 4 * GRID, channels)


def gelu(x: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(x * 0.5 * (1.0 + erf(x / np.sqrt(2.0))), np.float64)


def test_upscale_equals_the_plain_formula(decoder: MaskDecoder) -> None:
    image = normal(2, GRID * GRID, CHANNELS)
    upscaled = joined(as_arrays(decoder.upscale(DenseImage(image, None))))
    first, norm, second = decoder.output_upscaling
    gamma, beta = as_arrays([norm.gamma, norm.beta])
    for i in range(2):
        x = transposed_convolution(first, image[i].reshape(GRID, GRID, CHANNELS))
        centred = x - x.mean(axis=-1, keepdims=True)
        x = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6) * gamma + beta
        x = gelu(transposed_convolution(second, gelu(x)))
        np.testing.assert_allclose(upscaled[i], x, atol=1e-4)


@pytest.mark.parametrize("part", [(GRID, GRID), (2, 1), (1, 1)])
def test_mask_logits_are_products_of_weights_and_features(
    decoder: MaskDecoder, part: tuple[int, int]
) -> None:
    weights = normal(PROMPTS, 4, CHANNELS // 8)
    image = DenseImage(ops.convert_to_tensor(normal(PROMPTS, GRID * GRID, CHANNELS)), None)
    logits = as_arrays(decoder.mask_logits(weights, image, GridParts((GRID, GRID), part)))
    features = joined(as_arrays(decoder.upscale(image)))
    np.testing.assert_allclose(logits, np.einsum("pkc,phwc->pkhw", weights, features), atol=1e-4)


def test_logits_of_parts_that_nobody_wants_are_not_made(decoder: MaskDecoder) -> None:
    weights = normal(PROMPTS, 4, CHANNELS // 8)
    tokens = normal(PROMPTS, GRID * GRID, CHANNELS)
    unwanted = np.arange(GRID * GRID) % GRID >= 2
    tokens[:, unwanted] = np.nan
    image = DenseImage(ops.convert_to_tensor(tokens), None)
    parts = GridParts((GRID, GRID), (1, 1))
    wanted = replace(parts, wanted=parts.within(GRID, 2))
    logits = as_arrays(decoder.mask_logits(weights, image, wanted))
    whole = as_arrays(decoder.mask_logits(weights, image, parts))
    np.testing.assert_array_equal(logits[..., :8], whole[..., :8])
    assert np.isfinite(logits[..., :8]).all()
    assert not logits[..., 8:].any()


def test_decoder_keeps_its_heads_in_float32_under_a_half_precision_policy() -> None:
    half = make_decoder(dtype="mixed_float16")
    heads = [*half.output_hypernetworks_mlps, half.iou_prediction_head]
    assert {layer.compute_dtype for head in heads for layer in head.layers} == {"float32"}
    assert half.transformer.layers[0].compute_dtype == "float16"
    masks, scores = as_arrays(half(**embeddings()))
    assert masks.dtype == scores.dtype == np.float32


def test_decoder_refuses_a_transformer_of_another_width() -> None:
    with pytest.raises(ValueError, match=r"embedding_dim must equal transformer_dim.*16 and 32"):
        MaskDecoder(32, TwoWayTransformer(1, 16, 4, 20))


def test_decoder_makes_the_published_transformer_by_default() -> None:
    transformer = MaskDecoder(64).transformer
    assert (transformer.depth, transformer.num_heads, transformer.mlp_dim) == (2, 8, 2048)
    assert (transformer.embedding_dim, transformer.attention_downsample_rate) == (64, 2)


def test_config_round_trip_gives_an_equal_decoder(decoder: MaskDecoder) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(decoder))
    assert again.get_config() == decoder.get_config()
    assert again.built
    again.set_weights(decoder.get_weights())
    for actual, expected in zip(
        as_arrays(again(**embeddings())), as_arrays(decoder(**embeddings())), strict=True
    ):
        np.testing.assert_array_equal(actual, expected)


def test_decoder_of_other_numbers_of_masks_and_layers() -> None:
    decoder = make_decoder(num_multimask_outputs=2, iou_head_depth=2)
    masks, scores = as_arrays(decoder(**embeddings()))
    assert (masks.shape, scores.shape) == ((PROMPTS, 2, 16, 16), (PROMPTS, 2))
    assert len(decoder.iou_prediction_head.layers) == 2
