"""The product of matrices by heads, which TensorFlow must not be given as it is."""

from __future__ import annotations

from typing import Any

from keras import ops


def multiply_heads(x: Any, others: Any) -> Any:
    """Multiply `(P, h, M, K)` with `(P, h, K, N)`, `(1, h, K, N)` or `(h, K, N)`.

    TensorFlow 2.20 and 2.21 with oneDNN, on processors with AVX-512, write past the end of buffers
    when `(P, 1, M, K)` meets a matrix that all of the batch share: wrong values or a dead process
    (tensorflow/tensorflow#117700, uxlfoundation/oneDNN#4396), but not without the axis of size 1.
    """
    if x.shape[1] != 1:
        return ops.matmul(x, others)
    return ops.expand_dims(ops.matmul(ops.squeeze(x, 1), ops.squeeze(others, -3)), 1)
