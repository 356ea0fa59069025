from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from amg_pipeline.errors import ConfigError
from amg_pipeline.sam.backend import compile_function, prepare_backend


@pytest.fixture
def threads() -> int:
    """The threads of this process, which are fixed by its first operation."""
    tf.constant(1.0) + 1.0
    return int(tf.config.threading.get_intra_op_parallelism_threads())


@pytest.fixture
def _restored_tf32() -> Iterator[None]:
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


def pretend_backend(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: name)


@pytest.mark.usefixtures("_restored_tf32")
@pytest.mark.parametrize("exact", [True, False])
def test_exact_float32_forbids_tf32_and_nothing_else_does(threads: int, exact: bool) -> None:
    tf.config.experimental.enable_tensor_float_32_execution(True)
    prepare_backend("tensorflow", intra_op_threads=threads, exact_float32=exact)
    assert tf.config.experimental.tensor_float_32_execution_enabled() is not exact


def test_threads_cannot_change_after_the_first_operation(threads: int) -> None:
    with pytest.raises(ConfigError, match=rf"intra_op_threads \({threads + 1}\).*new process"):
        prepare_backend("tensorflow", intra_op_threads=threads + 1, exact_float32=False)


def test_another_backend_than_the_running_one_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'tensorflow'\. Received: 'jax'; start a new process"):
        prepare_backend("jax", intra_op_threads=1, exact_float32=True)


def test_a_backend_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)  # what makes `import keras` fail
    with pytest.raises(ConfigError, match=r"installed\. Received: 'jax'.*pip install.*\[jax\]"):
        prepare_backend("jax", intra_op_threads=1, exact_float32=True)


def test_jax_is_told_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    updates: dict[str, str] = {}
    config = SimpleNamespace(update=updates.__setitem__)
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(config=config))
    pretend_backend(monkeypatch, "jax")
    prepare_backend("jax", intra_op_threads=1, exact_float32=True)
    assert updates == {"jax_default_matmul_precision": "highest"}


def test_torch_is_told_threads_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    cudnn = SimpleNamespace(allow_tf32=True)
    torch = SimpleNamespace(
        set_num_threads=lambda count: told.update(threads=count),
        set_float32_matmul_precision=lambda precision: told.update(precision=precision),
        backends=SimpleNamespace(cudnn=cudnn),
    )
    monkeypatch.setitem(sys.modules, "torch", torch)
    pretend_backend(monkeypatch, "torch")
    prepare_backend("torch", intra_op_threads=3, exact_float32=True)
    assert told == {"threads": 3, "precision": "highest"}
    assert cudnn.allow_tf32 is False


def test_a_fresh_process_gets_backend_threads_and_precision() -> None:
    program = """
import os, sys
from amg_pipeline.sam.backend import prepare_backend
assert "keras" not in sys.modules
prepare_backend("tensorflow", intra_op_threads=2, exact_float32=True)
import tensorflow as tf
tf.constant(1.0) + 1.0
print(
    os.environ["KERAS_BACKEND"],
    tf.config.threading.get_intra_op_parallelism_threads(),
    tf.config.experimental.tensor_float_32_execution_enabled(),
)
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["tensorflow", "2", "False"]


def scaled_sum(variable: keras.Variable) -> Any:
    def function(x: Any, y: Any) -> Any:
        return {"scaled": x * variable, "sum": keras.ops.sum(y)}

    return function


def test_compiled_function_reads_the_variables_as_they_are() -> None:
    variable = keras.Variable(2.0)
    compiled = compile_function(scaled_sum(variable), [variable])
    x, y = np.float32(3.0), np.ones((2, 2), np.float32)
    assert float(compiled(x, y)["scaled"]) == 6.0
    variable.assign(5.0)
    outputs = compiled(x, y)
    assert (float(outputs["scaled"]), float(outputs["sum"])) == (15.0, 4.0)
    assert isinstance(compiled, tf.types.experimental.PolymorphicFunction)


def test_jax_gets_the_variables_as_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    jitted: list[float] = []

    def jit(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            jitted.append(float(arguments[0][0]))
            return function(*arguments)

        return call

    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(jit=jit))
    variable = keras.Variable(2.0)
    pretend_backend(monkeypatch, "jax")
    compiled = compile_function(scaled_sum(variable), [variable])
    assert float(compiled(np.float32(3.0), np.ones(2))["scaled"]) == 6.0
    variable.assign(5.0)
    assert float(compiled(np.float32(3.0), np.ones(2))["scaled"]) == 15.0
    assert jitted == [2.0, 5.0]


def test_torch_runs_without_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    wrapped = object()
    torch = SimpleNamespace(no_grad=lambda: lambda function: (wrapped, function))
    monkeypatch.setitem(sys.modules, "torch", torch)
    pretend_backend(monkeypatch, "torch")
    assert compile_function(len, []) == (wrapped, len)


def test_a_backend_without_graphs_gets_the_function_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend_backend(monkeypatch, "numpy")
    assert compile_function(len, []) is len
