from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from numpy.typing import NDArray
from scipy.special import erf

from amg_pipeline.sam.prompt_encoder import PositionEmbeddingRandom, PromptEncoder
from tests.sam.small_sam import as_arrays, randomize

HEIGHT, WIDTH = 48, 64
COORDS = np.array([[[10.0, 20.0], [50.25, 3.5]], [[0.0, 0.0], [63.0, 47.0]]])
LABELS = np.array([[1, 0], [1, 1]])
BOXES = np.array([[[4.0, 5.0, 30.0, 40.0]], [[1.0, 2.0, 3.0, 4.0]]])


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    """Sizes that differ by axis, so that no mixed-up axis goes unseen."""
    encoder = PromptEncoder(
        embed_dim=8, image_embedding_size=(6, 8), input_image_size=(HEIGHT, WIDTH), mask_in_chans=8
    )
    encoder.build()
    randomize(encoder, seed=0)
    return encoder


def values(variable: Any) -> NDArray[np.float64]:
    return np.asarray(as_arrays(variable.value), np.float64)


def fourier(encoder: PromptEncoder, x: Any, y: Any) -> NDArray[np.float64]:
    """Encode coordinates in [0, 1] one frequency at a time."""
    matrix = values(encoder.pe_layer.positional_encoding_gaussian_matrix)
    phases = 2 * np.pi * ((2 * x - 1) * matrix[0] + (2 * y - 1) * matrix[1])
    return np.concatenate([np.sin(phases), np.cos(phases)])


def token(encoder: PromptEncoder, x: float, y: float, label: int) -> NDArray[np.float64]:
    if label == -1:
        return values(encoder.not_a_point_embed)[0]
    position = fourier(encoder, (x + 0.5) / WIDTH, (y + 0.5) / HEIGHT)
    return np.asarray(position + values(encoder.point_embeddings[label])[0], np.float64)


def assert_tokens(encoder: PromptEncoder, actual: Any, expected: list[list[Any]]) -> None:
    actual = as_arrays(actual)
    wanted = np.array([[token(encoder, *one) for one in prompt] for prompt in expected])
    assert actual.dtype == np.float32
    assert actual.shape == wanted.shape
    np.testing.assert_allclose(actual, wanted, atol=2e-5)


def test_points_become_tokens_and_one_for_padding(encoder: PromptEncoder) -> None:
    sparse, dense = encoder(points=(COORDS, LABELS))
    expected = [
        [*((*xy, label) for xy, label in zip(coords, labels, strict=True)), (0, 0, -1)]
        for coords, labels in zip(COORDS, LABELS, strict=True)
    ]
    assert_tokens(encoder, sparse, expected)
    assert dense.shape == (1, 6, 8, 8)
    np.testing.assert_array_equal(
        as_arrays(dense), np.broadcast_to(as_arrays(encoder.no_mask_embed.value), (1, 6, 8, 8))
    )


def test_points_without_a_batch_axis_are_one_prompt(encoder: PromptEncoder) -> None:
    unbatched, _ = encoder(points=(COORDS[0], LABELS[0]))
    batched, _ = encoder(points=(COORDS[:1], LABELS[:1]))
    np.testing.assert_array_equal(as_arrays(unbatched), as_arrays(batched))


@pytest.mark.parametrize(
    "points",
    [
        pytest.param((COORDS.tolist(), LABELS.tolist()), id="lists"),
        pytest.param((COORDS.astype(np.float32), LABELS.astype(np.int32)), id="single-precision"),
        pytest.param((COORDS, LABELS.astype(np.float32)), id="float-labels"),
        pytest.param([COORDS, LABELS], id="pair-as-list"),
        pytest.param(
            (ops.convert_to_tensor(COORDS), ops.convert_to_tensor(LABELS)), id="tensors-float64"
        ),
    ],
)
def test_points_in_other_containers_give_the_same(encoder: PromptEncoder, points: Any) -> None:
    expected, _ = encoder(points=(COORDS, LABELS))
    np.testing.assert_array_equal(as_arrays(encoder(points=points)[0]), as_arrays(expected))


def test_integer_coordinates_are_pixels(encoder: PromptEncoder) -> None:
    sparse, _ = encoder(points=(np.array([[[7, 9]]]), np.array([[1]])))
    assert_tokens(encoder, sparse, [[(7, 9, 1), (0, 0, -1)]])


@pytest.mark.parametrize("boxes", [BOXES, BOXES.tolist()], ids=["array", "list"])
def test_a_box_becomes_its_two_corners_without_padding(encoder: PromptEncoder, boxes: Any) -> None:
    sparse, _ = encoder(boxes=boxes)
    assert_tokens(
        encoder,
        sparse,
        [[(4.0, 5.0, 2), (30.0, 40.0, 3)], [(1.0, 2.0, 2), (3.0, 4.0, 3)]],
    )


def test_several_boxes_become_pairs_of_corners_in_order(encoder: PromptEncoder) -> None:
    sparse, _ = encoder(boxes=BOXES.reshape(1, 2, 4))
    assert_tokens(encoder, sparse, [[(4.0, 5.0, 2), (30.0, 40.0, 3), (1.0, 2.0, 2), (3.0, 4.0, 3)]])


def test_points_come_before_boxes_and_need_no_padding_then(encoder: PromptEncoder) -> None:
    sparse, _ = encoder(points=(COORDS[:1], LABELS[:1]), boxes=BOXES[:1])
    assert_tokens(
        encoder,
        sparse,
        [[(10.0, 20.0, 1), (50.25, 3.5, 0), (4.0, 5.0, 2), (30.0, 40.0, 3)]],
    )


def test_a_point_labelled_none_has_no_position(encoder: PromptEncoder) -> None:
    sparse = as_arrays(encoder(points=(np.array([[[9.0, 9.0]]]), np.array([[-1]])))[0])
    np.testing.assert_array_equal(sparse[0, 0], sparse[0, 1])


def test_nothing_gives_no_token_and_the_embedding_of_no_mask(encoder: PromptEncoder) -> None:
    sparse, dense = encoder()
    assert sparse.shape == (1, 0, 8)
    assert dense.shape == (1, 6, 8, 8)


def gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(x * 0.5 * (1.0 + erf(x / np.sqrt(2.0))), np.float64)


def norm(layer: keras.layers.Layer, x: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return np.asarray(scaled * values(layer.gamma) + values(layer.beta), np.float64)


def patches(layer: keras.layers.Layer, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a convolution whose stride is its size."""
    size = layer.kernel_size[0]
    height, width, channels = x.shape
    cut = x.reshape(height // size, size, width // size, size, channels)
    return np.einsum("yaxbc,abcd->yxd", cut, values(layer.kernel)) + values(layer.bias)


def test_masks_are_embedded_by_the_formula(encoder: PromptEncoder) -> None:
    masks = np.random.default_rng(0).normal(0, 5, (2, 1, 24, 32))
    sparse, dense = encoder(masks=masks)
    assert sparse.shape == (2, 0, 8)
    first, first_norm, second, second_norm, last = encoder.mask_downscaling
    for mask, actual in zip(masks, as_arrays(dense), strict=True):
        x = gelu(norm(first_norm, patches(first, mask[0, :, :, None])))
        x = gelu(norm(second_norm, patches(second, x)))
        np.testing.assert_allclose(actual, patches(last, x), atol=1e-4)


def test_dense_pe_encodes_the_centres_of_the_grid_by_row_and_column(encoder: PromptEncoder) -> None:
    encoding = as_arrays(encoder.get_dense_pe())
    assert encoding.shape == (6, 8, 8)
    for row, column in [(0, 0), (5, 7), (2, 6)]:
        expected = fourier(encoder, (column + 0.5) / 8, (row + 0.5) / 6)
        np.testing.assert_allclose(encoding[row, column], expected, atol=2e-5)


def test_embed_normalized_points_takes_coordinates_as_they_are(encoder: PromptEncoder) -> None:
    normalized = ((COORDS + 0.5) / [WIDTH, HEIGHT]).astype(np.float32)
    embedded = encoder.embed_normalized_points(ops.convert_to_tensor(normalized), LABELS)
    expected = [
        [(*xy, label) for xy, label in zip(coords, labels, strict=True)]
        for coords, labels in zip(COORDS, LABELS, strict=True)
    ]
    assert_tokens(encoder, embedded, expected)


def test_half_precision_policies_do_not_round_coordinates() -> None:
    sizes: dict[str, Any] = {"embed_dim": 8, "input_image_size": (4096, 4096)}
    exact = PromptEncoder(**sizes)
    exact.build()
    randomize(exact, seed=0)
    # float16 knows only every second integer from here on.
    points = (np.array([[[2049.0, 3000.0]], [[2048.0, 3000.0]]]), np.array([[1], [1]]))
    expected = as_arrays(exact(points=points, boxes=np.array([[[2049.0, 1, 4001, 9]]] * 2)))
    assert np.abs(expected[0][0] - expected[0][1]).max() > 1e-4
    for policy in ("mixed_float16", "mixed_bfloat16", "float16"):
        encoder = PromptEncoder(**sizes, dtype=policy)
        encoder.build()
        encoder.set_weights(exact.get_weights())
        actual = as_arrays(encoder(points=points, boxes=np.array([[[2049.0, 1, 4001, 9]]] * 2)))
        np.testing.assert_array_equal(actual[0], expected[0])
        np.testing.assert_array_equal(actual[1], expected[1])
        np.testing.assert_array_equal(
            as_arrays(encoder.get_dense_pe()), as_arrays(exact.get_dense_pe())
        )


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        pytest.param({"points": COORDS}, "a pair .coords, labels.. Received: ", id="no-labels"),
        pytest.param(
            {"points": (COORDS, LABELS[:, :1])},
            r"Every point needs one label.*\(2, 2, 2\) with \(2, 1\)",
            id="label-missing",
        ),
        pytest.param(
            {"points": (COORDS[..., :1], LABELS)},
            r"coords \(B, N, 2\).*Received: \(2, 2, 1\)",
            id="one-coordinate",
        ),
        pytest.param(
            {"points": (COORDS, LABELS[0])},
            r"labels \(B, N\). Received: \(2, 2, 2\) with \(2,\)",
            id="rank",
        ),
        pytest.param(
            {"boxes": BOXES[:, 0]}, r"XYXY of shape \(B, M, 4\). Received: \(2, 4\)", id="box-rank"
        ),
        pytest.param(
            {"boxes": BOXES[..., :3]}, r"Received: \(2, 1, 3\)", id="box-of-three-numbers"
        ),
        pytest.param(
            {"masks": np.zeros((1, 1, 32, 24))},
            r"shape \(B, 1, 24, 32\). Received: \(1, 1, 32, 24\)",
            id="mask-size",
        ),
    ],
)
def test_wrong_prompts_are_refused(
    encoder: PromptEncoder, prompts: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(**prompts)


@pytest.mark.parametrize(
    "layer",
    [
        PositionEmbeddingRandom(6, name="positions"),
        PromptEncoder(8, (6, 8), (48, 64), mask_in_chans=8, name="prompts"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_config_round_trip_gives_an_equal_layer(layer: keras.layers.Layer) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    for one in (layer, again):
        one.build(None)
    again.set_weights(layer.get_weights())
    call = {"points": (COORDS, LABELS)} if isinstance(layer, PromptEncoder) else {"coords": COORDS}
    for actual, expected in zip(
        keras.tree.flatten(as_arrays(again(**call))),
        keras.tree.flatten(as_arrays(layer(**call))),
        strict=True,
    ):
        np.testing.assert_array_equal(actual, expected)


def test_frequencies_are_fixed_and_everything_else_is_trained(encoder: PromptEncoder) -> None:
    fixed = [variable.name for variable in encoder.non_trainable_variables]
    assert fixed == ["positional_encoding_gaussian_matrix"]
