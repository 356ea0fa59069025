"""The Keras backend: chosen and set up once per process, and asked to compile functions.

Nothing of Keras is imported before it is needed: the backend is fixed by the first import, and
threads by the first use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from amg_pipeline.errors import ConfigError

if TYPE_CHECKING:
    import keras


def prepare_backend(backend: str, *, intra_op_threads: int, exact_float32: bool) -> None:
    """Choose the backend and fix its numerics, before the first model is made.

    Args:
        backend: `"tensorflow"`, `"jax"` or `"torch"`.
        intra_op_threads: Threads of one operation, and on TensorFlow calls of the decoder at a
            time (one more of them where Python between two calls would leave a core idle). Set
            here, since Ray pins `OMP_NUM_THREADS`; JAX has no such setting and takes
            its threads from the process's cores.
        exact_float32: Whether float32 products must not be rounded to TF32 or bfloat16.

    Raises:
        ConfigError: If Keras is running on another backend already, or the backend is not
            installed.
    """
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = backend
    try:
        import keras
    except ImportError as error:
        raise ConfigError(
            f"model.backend must be installed. Received: {backend!r} ({error}); "
            f"try pip install 'amg_pipeline[{backend}]'"
        ) from error
    if keras.backend.backend() != backend:
        raise ConfigError(
            f"model.backend must be the one that Keras runs on in this process, "
            f"{keras.backend.backend()!r}. Received: {backend!r}; start a new process"
        )
    _set_threads(backend, intra_op_threads)
    if exact_float32:
        _forbid_rounded_products(backend)


def has_accelerator() -> bool:
    """Tell whether the backend computes on something else than this machine's processor."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return any(device.device_type != "CPU" for device in tf.config.list_logical_devices())
    if backend == "jax":
        import jax

        return str(jax.default_backend()) != "cpu"
    import torch

    return bool(torch.cuda.is_available())


def is_compiled_by_xla() -> bool:
    """Tell whether XLA compiles the functions that `compile_function` is to fuse."""
    import keras

    return str(keras.backend.backend()) in {"tensorflow", "jax"}


def threads_for_calls() -> int:
    """Tell how many calls of compiled functions this machine's processor is worth at a time.

    XLA runs most of a compiled function in one thread, on TensorFlow and JAX. PyTorch's operations
    share the cores themselves.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "torch" or has_accelerator():
        return 1
    if backend == "tensorflow":
        import tensorflow as tf

        if chosen := tf.config.threading.get_intra_op_parallelism_threads():
            return int(chosen)
    return _usable_cores()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compile_function(
    function: Callable[..., Any], variables: Sequence[keras.Variable], *, fuse: bool = False
) -> Callable[..., Any]:
    """Make a function run as one graph where the backend has graphs.

    Args:
        function: Takes and returns (structures of) tensors, calls layers, and has no side effect.
        variables: The variables that it reads. JAX takes them as arguments; as constants of the
            graph they would be copied into every compiled shape.
        fuse: Whether XLA compiles it on TensorFlow too: seconds for each combination of shapes,
            worth it where element-wise work weighs as much as products. JAX always does.

    Returns:
        A function of the same arguments, without gradients. NumPy arrays may be passed; a new
        combination of shapes may compile anew.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # Nothing here branches on a tensor, so its Python is traced as it stands.
        compiled: Callable[..., Any] = tf.function(
            function, reduce_retracing=not fuse, autograph=False, jit_compile=fuse or None
        )
        return compiled
    if backend == "jax":
        return _compile_with_jax(function, variables)
    if backend == "torch":
        import torch

        without_gradients: Callable[..., Any] = torch.no_grad()(function)
        return without_gradients
    return function


def _compile_with_jax(
    function: Callable[..., Any], variables: Sequence[keras.Variable]
) -> Callable[..., Any]:
    import jax
    import keras

    @jax.jit  # type: ignore[untyped-decorator]
    def pure(values: list[Any], *arguments: Any) -> Any:
        mapping = list(zip(variables, values, strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*arguments)

    def call(*arguments: Any) -> Any:
        return pure([variable.value for variable in variables], *arguments)

    return call


def _set_threads(backend: str, intra_op_threads: int) -> None:
    if backend == "tensorflow":
        import tensorflow as tf

        if tf.config.threading.get_intra_op_parallelism_threads() == intra_op_threads:
            return
        try:
            tf.config.threading.set_intra_op_parallelism_threads(intra_op_threads)
        except RuntimeError as error:
            raise ConfigError(
                f"model.intra_op_threads ({intra_op_threads}) must be set before TensorFlow's "
                "first operation in this process; start a new process"
            ) from error
    elif backend == "torch":
        import torch

        torch.set_num_threads(intra_op_threads)


def _forbid_rounded_products(backend: str) -> None:
    # Accelerators round the factors of float32 products to 10 bits or fewer by default, which
    # moves logits by more than the parity tolerance.
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "jax":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")
    elif backend == "torch":
        import torch

        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
