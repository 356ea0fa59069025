"""Shapes with which TensorFlow's own kernel corrupts memory on processors with AVX-512."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from amg_pipeline.sam.products import multiply_heads

SIZES = st.sampled_from([1, 2, 7, 16, 32])


def drawn(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@given(
    batch=st.sampled_from([1, 2, 8, 64]), heads=st.sampled_from([1, 3]), m=SIZES, k=SIZES, n=SIZES
)
@pytest.mark.parametrize("shared", ["rank 4", "rank 3", "not"])
def test_heads_are_multiplied_one_by_one(
    shared: str, batch: int, heads: int, m: int, k: int, n: int
) -> None:
    x = drawn(batch, heads, m, k)
    others = {
        "rank 4": drawn(1, heads, k, n),
        "rank 3": drawn(heads, k, n),
        "not": drawn(batch, heads, k, n),
    }[shared]
    np.testing.assert_allclose(multiply_heads(x, others), x @ others, rtol=1e-4, atol=1e-4)
