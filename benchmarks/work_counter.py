"""Counts the work of compiled functions, not their seconds: operations, calls, bytes to the host.

`products_of` walks a traced TensorFlow graph, into loops and nested functions, and lists its matrix
products and convolutions with their shapes. That is where the time of a large model goes, and it is
what PyTorch's own counter counts, so that numbers of both can stand beside each other. Element-wise
work is left out. `WorkRecorder` notes which functions the package compiles, and while it counts,
how often each is called with which shapes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from types import TracebackType
from typing import Any, Self

#: Operations that call a function of the graph, and the attributes that name it.
_CALLS = {"PartitionedCall": "f", "StatefulPartitionedCall": "f"}
_LOOPS = frozenset(("While", "StatelessWhile"))
_BRANCHES = frozenset(("If", "StatelessIf", "Case", "StatelessCase"))


@dataclass(frozen=True, slots=True)
class Product:
    """A matrix product or convolution of a graph.

    Attributes:
        kind: The operation's type.
        times: How often one call of the graph does it.
        flops: Floating-point operations of one; a multiplication and an addition are two.
        operand_bytes: Size of what one reads and writes.
        is_optional: Whether it is in a branch, whose other side has none.
    """

    kind: str
    times: int
    flops: int
    operand_bytes: int
    is_optional: bool = False


def products_of(graph: Any, *, times: int = 1) -> Iterator[Product]:
    """List the products of a traced function.

    Args:
        graph: A `FuncGraph`, as a concrete function's `graph`.
        times: How often it is run.

    Raises:
        ValueError: If a shape or the turns of a loop are not known, or both sides of a branch have
            products: then there is no one number.
    """
    for operation in _needed(graph):
        kind = operation.type
        if kind in _CALLS:
            yield from products_of(_function(operation, _CALLS[kind]), times=times)
        elif kind in _LOOPS:
            yield from _products_of_loop(operation, times)
        elif kind in _BRANCHES:
            yield from _products_of_branch(operation, times)
        elif kind in _FLOPS:
            tensors = [*operation.inputs, *operation.outputs]
            size = sum(_elements(tensor) * tensor.dtype.size for tensor in tensors)
            yield Product(kind, times, _FLOPS[kind](operation), size)


def _needed(graph: Any) -> Iterator[Any]:
    """Give the operations that results depend on; others are traced and never run."""
    seen: set[str] = set()
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    while waiting:
        operation = waiting.pop()
        if operation.name not in seen:
            seen.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs]
            waiting += operation.control_inputs
            yield operation


def _products_of_loop(operation: Any, times: int) -> Iterator[Product]:
    import tensorflow as tf

    body = list(products_of(_function(operation, "body")))
    if not body:
        return
    # Its second input is the largest number of turns, which loops over the parts of a tensor have.
    turns = tf.get_static_value(operation.inputs[1])
    if turns is None or turns < 0:
        raise ValueError(f"{operation.name} has an unknown number of turns")
    for product in body:
        yield replace(product, times=times * int(turns) * product.times)


def _products_of_branch(operation: Any, times: int) -> Iterator[Product]:
    sides = [
        list(products_of(_function(operation, name), times=times))
        for name in ("then_branch", "else_branch")
        if name in operation.node_def.attr
    ]
    if len(sides) != 2 or all(sides):
        raise ValueError(f"{operation.name} has products on more sides than one")
    for product in chain(*sides):
        yield replace(product, is_optional=True)


def _function(operation: Any, attribute: str) -> Any:
    # The graph as it was traced: rebuilt from its definition it would not know variables' shapes.
    return operation.graph._get_function(operation.get_attr(attribute).name).graph


def _elements(tensor: Any) -> int:
    if not tensor.shape.is_fully_defined():
        raise ValueError(f"{tensor.name} has no fixed shape: {tensor.shape}")
    return math.prod(tensor.shape.as_list())


def _matrix_flops(operation: Any) -> int:
    attributes = operation.node_def.attr
    transposed = attributes["transpose_a"].b or attributes["adj_x"].b
    shape = operation.inputs[0].shape.as_list()
    return 2 * _elements(operation.outputs[0]) * shape[-2 if transposed else -1]


def _convolution_flops(operation: Any) -> int:
    height, width, channels, _ = operation.inputs[1].shape.as_list()
    return 2 * _elements(operation.outputs[0]) * height * width * channels


def _transposed_convolution_flops(operation: Any) -> int:
    # Kernel (h, w, out, in); every input position gives h w out values.
    height, width, out, _ = operation.inputs[1].shape.as_list()
    return 2 * _elements(operation.inputs[2]) * height * width * out


def _einsum_flops(operation: Any) -> int:
    equation = operation.get_attr("equation").decode()
    sizes: dict[str, int] = {}
    for letters, tensor in zip(equation.split("->")[0].split(","), operation.inputs, strict=True):
        if "." in letters:
            raise ValueError(f"{operation.name} has an ellipsis: {equation}")
        sizes.update(zip(letters, tensor.shape.as_list(), strict=True))
    return 2 * math.prod(sizes.values())


_FLOPS: dict[str, Callable[[Any], int]] = {
    "MatMul": _matrix_flops,
    "BatchMatMul": _matrix_flops,
    "BatchMatMulV2": _matrix_flops,
    "BatchMatMulV3": _matrix_flops,
    "Conv2D": _convolution_flops,
    "Conv2DBackpropInput": _transposed_convolution_flops,
    "Einsum": _einsum_flops,
}


@dataclass(slots=True)
class Calls:
    """What was called while it was counted.

    Attributes:
        functions: Calls of each compiled function.
        flops: Operations of their products, by function.
        bytes_to_host: Bytes that were brought to the host.
        transfers: How often something was.
    """

    functions: Counter[str] = field(default_factory=Counter)
    flops: Counter[str] = field(default_factory=Counter)
    bytes_to_host: int = 0
    transfers: int = 0

    def to_json(self) -> dict[str, Any]:
        """Give all numbers, and the sum of all operations, as a dictionary."""
        return {
            "flops": sum(self.flops.values()),
            "functions": dict(sorted(self.functions.items())),
            "flops_by_function": dict(sorted(self.flops.items())),
            "bytes_to_host": self.bytes_to_host,
            "transfers": self.transfers,
        }


class Compiled:
    """A function that was given to `tf.function`; calls it and counts while its recorder does."""

    def __init__(self, recorder: WorkRecorder, make: Any, function: Any, options: Any) -> None:
        self._recorder, self._function = recorder, function
        self._make, self._compiled = make, make(function, **options)
        self.name: str = getattr(function, "__name__", type(function).__name__).lstrip("_")
        self._traced: dict[str, tuple[Any, list[Product]]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Run the compiled function."""
        calls = self._recorder.calls
        if calls is None or _is_tracing():
            return self._compiled(*arguments)
        traced, products = self.trace(*arguments)
        calls.functions[self.name] += 1
        done = _share_done(arguments) if any(one.is_optional for one in products) else 1.0
        calls.flops[self.name] += round(
            sum(one.times * one.flops * (done if one.is_optional else 1.0) for one in products)
        )
        return self._compiled(*arguments) if self._recorder.compiles else traced(*arguments)

    def trace(self, *arguments: Any) -> tuple[Any, list[Product]]:
        """Trace the function for arguments of these shapes, and list the products of a call."""
        import tensorflow as tf

        specs = tf.nest.map_structure(_spec, arguments)
        key = str(specs)
        if key not in self._traced:
            # Not the graph that runs, which may have been traced for any shapes.
            traced = self._make(self._function, autograph=False).get_concrete_function(*specs)
            self._traced[key] = traced, list(products_of(traced.graph))
        return self._traced[key]


class WorkRecorder:
    """Notes the functions that are given to `tf.function` within its context.

    Args:
        compiles: Whether what runs is what the package asked for; else it is the traced graph that
            is counted, which starts much sooner.
    """

    def __init__(self, *, compiles: bool = True) -> None:
        self.calls: Calls | None = None
        self.compiles = compiles
        #: What was noted, in order.
        self.functions: list[Compiled] = []

    def __enter__(self) -> Self:
        import tensorflow as tf

        self._make = tf.function

        def make(function: Any = None, **options: Any) -> Any:
            self.functions.append(Compiled(self, self._make, function, options))
            return self.functions[-1]

        tf.function = make
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import tensorflow as tf

        tf.function = self._make

    @contextmanager
    def counting(self) -> Iterator[Calls]:
        """Count the calls of the noted functions, and what is brought to the host."""
        from keras import ops

        self.calls = calls = Calls()
        bring = ops.convert_to_numpy

        def count(x: Any) -> Any:
            array = bring(x)
            calls.transfers += 1
            calls.bytes_to_host += int(array.nbytes)
            return array

        ops.convert_to_numpy = count
        try:
            yield calls
        finally:
            ops.convert_to_numpy = bring
            self.calls = None


def _share_done(arguments: tuple[Any, ...]) -> float:
    """Tell how many of the optional products are done: those that a bool array asks for."""
    import numpy as np

    asked = [one for one in arguments if isinstance(one, np.ndarray) and one.dtype == bool]
    if len(asked) != 1:
        raise ValueError(f"Expected one bool array that chooses branches. Received: {len(asked)}")
    return float(asked[0].mean())


def _is_tracing() -> bool:
    import tensorflow as tf

    return bool(tf.inside_function())


def _spec(argument: Any) -> Any:
    import numpy as np
    import tensorflow as tf

    if isinstance(argument, tf.TensorSpec):
        return argument
    if isinstance(argument, tf.Tensor):
        return tf.TensorSpec(argument.shape, argument.dtype)
    array = np.asarray(argument)
    return tf.TensorSpec(array.shape, array.dtype)
