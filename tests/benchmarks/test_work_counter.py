"""The counter of work agrees with what is known of products, loops and calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from benchmarks.work_counter import WorkRecorder, products_of


def _flops(function: Callable[..., Any], *shapes: tuple[int, ...]) -> int:
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    return sum(product.times * product.flops for product in products_of(graph))


@pytest.mark.parametrize(
    ("function", "shapes", "expected"),
    [
        (tf.linalg.matmul, [(3, 5), (5, 7)], 2 * 3 * 5 * 7),
        (lambda a, b: tf.linalg.matmul(a, b, transpose_a=True), [(5, 3), (5, 7)], 2 * 3 * 5 * 7),
        (lambda a, b: tf.linalg.matmul(a, b, adjoint_b=True), [(2, 3, 5), (2, 7, 5)], 420),
        (tf.linalg.matmul, [(4, 3, 5), (1, 5, 7)], 2 * 4 * 3 * 5 * 7),
        (lambda a, b: tf.einsum("bij,bkj->bik", a, b), [(2, 3, 5), (2, 7, 5)], 2 * 2 * 3 * 5 * 7),
        (lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), [(1, 8, 8, 3), (3, 3, 3, 4)], 2 * 64 * 27 * 4),
        (
            lambda x, k: tf.nn.conv2d_transpose(x, k, (1, 8, 8, 5), 2),
            [(1, 4, 4, 3), (2, 2, 5, 3)],
            2 * 16 * 3 * 4 * 5,
        ),
        (lambda a: tf.nn.relu(a) + 1.0, [(3, 5)], 0),
    ],
)
def test_products_are_counted(
    function: Callable[..., Any], shapes: list[tuple[int, ...]], expected: int
) -> None:
    assert _flops(function, *shapes) == expected


def test_a_loop_counts_as_often_as_it_turns() -> None:
    assert _flops(lambda x: ops.map(lambda part: part @ part, x), (6, 4, 4)) == 6 * 2 * 4**3


def test_loops_in_loops_and_functions_in_functions_count() -> None:
    inner = tf.function(lambda part: part @ part, autograph=False)
    nested = ops.map
    assert (
        _flops(lambda x: nested(lambda some: nested(inner, some), x), (3, 5, 4, 4)) == 15 * 2 * 4**3
    )


def test_a_loop_without_a_known_end_is_refused() -> None:
    def until(x: Any) -> Any:
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 9.0, lambda y: (y @ y,), (x,))

    with pytest.raises(ValueError, match="turns"):
        _flops(until, (4, 4))


def _square_if(wanted: Any, x: Any) -> Any:
    return ops.map(
        lambda one: ops.cond(one[0], lambda: one[1] @ one[1], lambda: ops.zeros((4, 4))),
        (wanted, x),
    )


def test_a_branch_counts_as_often_as_it_is_asked_for() -> None:
    recorder = WorkRecorder()
    with recorder:
        compiled = tf.function(_square_if, autograph=False)
    x = np.zeros((8, 4, 4), np.float32)
    with recorder.counting() as calls:
        compiled(np.arange(8) < 3, x)
    assert calls.to_json()["flops"] == 3 * 2 * 4**3
    with recorder.counting(), pytest.raises(ValueError, match="one bool array"):
        compiled(tf.range(8) < 3, x)


def test_products_on_both_sides_of_a_branch_are_refused() -> None:
    def either(x: Any) -> Any:
        return ops.cond(tf.reduce_sum(x) > 0.0, lambda: x @ x, lambda: x @ x @ x)

    with pytest.raises(ValueError, match="more sides than one"):
        _flops(either, (4, 4))


def test_products_of_unknown_size_are_refused() -> None:
    spec = tf.TensorSpec((None, 4), tf.float32)
    graph = tf.function(lambda x: x @ tf.ones((4, 4))).get_concrete_function(spec).graph
    with pytest.raises(ValueError, match="no fixed shape"):
        list(products_of(graph))


def test_calls_and_bytes_are_counted_only_while_counting() -> None:
    recorder = WorkRecorder()
    with recorder:
        square = tf.function(lambda x: x @ x, autograph=False)
    x = np.eye(4, dtype=np.float32)
    square(x)
    with recorder.counting() as calls:
        ops.convert_to_numpy(square(x))
        square(x)
    ops.convert_to_numpy(square(x))
    counted = calls.to_json()
    assert counted["functions"] == {"<lambda>": 2}
    assert counted["flops"] == 2 * 2 * 4**3
    assert (counted["bytes_to_host"], counted["transfers"]) == (64, 1)
