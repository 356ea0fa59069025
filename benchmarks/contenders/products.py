"""Not a contender: the rate at which TensorFlow multiplies large matrices here."""

from __future__ import annotations

import time

from benchmarks.contenders.protocol import Task

_SIZE = 2048
_REPEATS = 3


class Products:
    """Measures the machine's rate of products, in floating-point operations a second."""

    def __init__(self, task: Task) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(task.threads)
        generator = tf.random.Generator.from_seed(1)
        self._factors = {
            dtype: tf.cast(generator.normal((_SIZE, _SIZE)), dtype)
            for dtype in ("float32", "bfloat16")
        }
        self._multiply = tf.function(lambda x: tf.linalg.matmul(x, x), autograph=False)
        for factor in self._factors.values():
            self._multiply(factor).numpy()

    def rate(self) -> dict[str, float]:
        """Give the best of a few products, by type."""
        return {dtype: self._rate(factor) for dtype, factor in self._factors.items()}

    def _rate(self, factor: object) -> float:
        seconds = []
        for _ in range(_REPEATS):
            started = time.perf_counter()
            self._multiply(factor)[0, 0].numpy()
            seconds.append(time.perf_counter() - started)
        return 2 * _SIZE**3 / min(seconds)
