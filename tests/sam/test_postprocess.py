from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from amg_pipeline.sam import SAM
from amg_pipeline.sam.postprocess import bilinear_weights, resize_weights
from tests.sam.plain_resize import bilinear, two_resizes
from tests.sam.small_sam import IMG_SIZE, LOW_RES, as_arrays

SIDES = st.integers(1, 60)


def random_logits(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 4, shape).astype(np.float32)


@given(SIDES, SIDES)
@example(1, 7)
@example(7, 1)
@settings(max_examples=25)
def test_bilinear_weights_equal_the_plain_resize(input_size: int, output_size: int) -> None:
    weights = as_arrays(bilinear_weights(input_size, output_size))
    assert weights.shape == (output_size, input_size)
    assert weights.dtype == np.float32
    x = random_logits(input_size, 1)
    np.testing.assert_allclose(weights @ x, bilinear(x, (output_size, 1)), atol=2e-4)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)


def test_bilinear_weights_of_an_equal_size_copy() -> None:
    np.testing.assert_array_equal(as_arrays(bilinear_weights(9, 9)), np.eye(9))


def test_bilinear_weights_of_tensors_equal_those_of_ints() -> None:
    actual = as_arrays(bilinear_weights(tf.constant(9), tf.constant(14)))
    np.testing.assert_array_equal(actual, as_arrays(bilinear_weights(9, 14)))


@pytest.mark.parametrize(
    ("input_size", "original_size"),
    [
        pytest.param((38, 64), (48, 80), id="wide"),
        pytest.param((64, 21), (131, 43), id="tall-odd"),
        pytest.param((64, 64), (64, 64), id="model-frame"),
        pytest.param((1, 64), (1, 200), id="one-row"),
        pytest.param((64, 64), (20, 20), id="smaller-than-low-res"),
    ],
)
def test_postprocess_masks_resizes_twice_and_cuts_the_padding_between(
    sam: SAM, input_size: tuple[int, int], original_size: tuple[int, int]
) -> None:
    logits = random_logits(2, 3, LOW_RES, LOW_RES)
    actual = as_arrays(sam.postprocess_masks(logits, input_size, original_size))
    assert actual.shape == (2, 3, *original_size)
    assert actual.dtype == np.float32
    expected = two_resizes(logits, IMG_SIZE, input_size, original_size)
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_postprocess_masks_works_in_float32_whatever_it_gets(sam: SAM) -> None:
    logits = random_logits(1, 1, LOW_RES, LOW_RES).astype(np.float16)
    half = as_arrays(sam.postprocess_masks(logits, (38, 64), (48, 80)))
    full = as_arrays(sam.postprocess_masks(logits.astype(np.float32), (38, 64), (48, 80)))
    np.testing.assert_array_equal(half, full)


def test_resize_weights_are_the_product_of_both_resizes() -> None:
    to_frame = as_arrays(bilinear_weights(32, 64))[:40]
    expected = as_arrays(bilinear_weights(40, 77)) @ to_frame
    np.testing.assert_allclose(as_arrays(resize_weights(32, 64, 40, 77)), expected, atol=1e-6)
