"""The low-rank form of the image that prompts share, against the plain one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from amg_pipeline.sam.grid_parts import GridParts
from amg_pipeline.sam.image_side import DenseImage, ImageSide
from amg_pipeline.sam.low_rank_image import LowRankImage
from amg_pipeline.sam.transformer import TwoWayTransformer
from tests.sam.small_sam import as_arrays, randomize

CHANNELS, HEADS, TOKENS, PROMPTS = 64, 2, 5, 3


def make_transformer(depth: int = 2, **changes: Any) -> TwoWayTransformer:
    layer = TwoWayTransformer(
        depth=depth, embedding_dim=CHANNELS, num_heads=HEADS, mlp_dim=40, **changes
    )
    layer.build()
    randomize(layer, seed=depth)
    return layer


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def inputs(images: int = 1) -> tuple[Any, Any, Any]:
    image, positions = normal(images, 30, CHANNELS), normal(1, 30, CHANNELS)
    tokens = normal(PROMPTS, TOKENS, CHANNELS)
    return tuple(ops.convert_to_tensor(part) for part in (image, positions, tokens))


def both(
    transformer: TwoWayTransformer, images: int = 1
) -> tuple[tuple[Any, DenseImage], tuple[Any, LowRankImage], Any]:
    image, positions, tokens = inputs(images)
    grid, grid_positions = (ops.reshape(part, (-1, 5, 6, CHANNELS)) for part in (image, positions))
    low_rank = transformer.image_side(grid, grid_positions, TOKENS)
    assert isinstance(low_rank, LowRankImage)
    dense = transformer.run_blocks(DenseImage(image, positions), tokens)
    return dense, transformer.run_blocks(low_rank, tokens), tokens


def projected(image: ImageSide, kernel: Any, part: tuple[int, int] | None = None) -> NDArray[Any]:
    """Give an image's product, `(P, S, N)`, put together again if it was made of parts."""
    if part is None:
        return np.asarray(as_arrays(image.map_projected(kernel, lambda x: x)))
    parts = GridParts((5, 6), part)
    mapped = image.map_projected(
        kernel, lambda x: ops.moveaxis(ops.reshape(x, (PROMPTS, *part, -1)), -1, 1), parts
    )
    joined = as_arrays(parts.join(mapped))
    return np.moveaxis(joined.reshape(*joined.shape[:2], 30), 1, 2)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("images", [1, PROMPTS], ids=["shared", "one-each"])
def test_both_forms_give_the_same_tokens_and_image(depth: int, images: int) -> None:
    transformer = make_transformer(depth)
    (queries, dense), (low_rank_queries, low_rank), tokens = both(transformer, images)
    np.testing.assert_allclose(as_arrays(low_rank_queries), as_arrays(queries), atol=2e-5)
    np.testing.assert_allclose(
        as_arrays(low_rank.features()), as_arrays(dense.features()), atol=5e-5
    )
    kernel = ops.convert_to_tensor(normal(CHANNELS, 12))
    np.testing.assert_allclose(
        projected(low_rank, kernel, (5, 2)), projected(dense, kernel), atol=5e-4
    )
    finished = [
        as_arrays(transformer.look_once_more(side, queries, tokens)) for side in (dense, low_rank)
    ]
    np.testing.assert_allclose(finished[1], finished[0], atol=5e-5)


def test_tokens_are_finished_each_for_itself() -> None:
    transformer = make_transformer()
    _, (queries, image), tokens = both(transformer)
    whole = as_arrays(transformer.look_once_more(image, queries, tokens))
    some = as_arrays(transformer.look_once_more(image, queries[:, 1:3], tokens[:, 1:3]))
    np.testing.assert_allclose(some, whole[:, 1:3], atol=1e-5)


@pytest.mark.parametrize("form", [0, 1], ids=["dense", "low-rank"])
def test_chosen_prompts_are_restored_from_tensors(form: int) -> None:
    transformer = make_transformer()
    image = both(transformer)[form][1]
    chosen = {name: part[1:] for name, part in image.added.items()}
    restored = type(image).restored(image.shared, chosen)
    np.testing.assert_allclose(
        as_arrays(restored.features()), as_arrays(image.features())[1:], atol=1e-5
    )


def test_terms_may_hold_the_product_with_one_kernel() -> None:
    transformer = make_transformer()
    kernel = ops.convert_to_tensor(normal(CHANNELS, 12))
    _, (_, image), _ = both(transformer)
    prepared = LowRankImage(image.prepared(kernel), image.scale, image.additions)
    np.testing.assert_allclose(
        projected(prepared, kernel, (1, 6)), projected(image, kernel), atol=1e-5
    )
    np.testing.assert_allclose(
        as_arrays(prepared.features()), as_arrays(image.features()), atol=1e-5
    )


def test_both_forms_have_the_same_gradients() -> None:
    transformer = make_transformer()
    weights = normal(PROMPTS, TOKENS, CHANNELS), normal(PROMPTS, 30, CHANNELS)
    gradients = []
    for form in (0, 1):
        with tf.GradientTape() as tape:
            queries, image = both(transformer)[form]
            loss = ops.sum(queries * weights[0]) + ops.sum(image.features() * weights[1])
        found = tape.gradient(
            loss,
            [variable.value for variable in transformer.trainable_variables],
            # What is the same for all keys cancels in their softmax; the low-rank form leaves it
            # out. The last attention is not run.
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradients.append(as_arrays(found))
    for dense, low_rank in zip(*gradients, strict=True):
        np.testing.assert_allclose(low_rank, dense, atol=2e-3 * max(1.0, np.abs(dense).max()))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_the_form_follows_the_number_of_tokens_and_the_policy() -> None:
    transformer = make_transformer()
    assert transformer.is_low_rank(8)
    assert not transformer.is_low_rank(9)
    assert not transformer.is_low_rank(1)
    assert not transformer.is_low_rank(None)
    assert not make_transformer(dtype="mixed_bfloat16").is_low_rank(2)
    transformer.final_attn_token_to_image.q_proj.quantize("int8")
    assert not transformer.is_low_rank(8)


def test_the_call_uses_either_form() -> None:
    transformer = make_transformer()
    image, positions = normal(1, 5, 6, CHANNELS), normal(5, 6, CHANNELS)
    tokens = normal(PROMPTS, 9, CHANNELS)
    expected = as_arrays(transformer(image, positions, tokens)[0])
    fewer = as_arrays(transformer(image, positions, tokens[:, :8])[0])
    assert expected.shape == (PROMPTS, 9, CHANNELS)
    dense = DenseImage(*(ops.reshape(part, (1, 30, CHANNELS)) for part in (image, positions)))
    plain, _ = transformer.attend(dense, ops.convert_to_tensor(tokens[:, :8]))
    np.testing.assert_allclose(fewer, as_arrays(plain), atol=5e-5)
