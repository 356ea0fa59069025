"""Moves values between a model's variables and official tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.architecture import expected_shapes, of_model
from amg_pipeline.sam.weights.checkpoint import open_weights, require_fit
from amg_pipeline.sam.weights.names import is_kernel, kernel_to_keras, kernel_to_torch
from amg_pipeline.sam.weights.source import Source
from amg_pipeline.sam.weights.tensors import Array, SourceTensor

#: The official stacks count activations as layers; the model's lists do not hold them.
_STACK_POSITIONS = {
    "mask_downscaling": {"0": 0, "1": 1, "3": 2, "4": 3, "6": 4},
    "output_upscaling": {"0": 0, "1": 1, "3": 2},
}


def load_weights(model: Any, source: Source) -> None:
    """Fill a built `SAM` from a checkpoint.

    Reads the official `.pth` files (without torch; nothing in them is executed), `.safetensors`
    with the official names, Hugging Face `SamModel` files or folders, KerasHub SAM preset folders,
    and this package's `.keras` and `.weights.h5`. Float16 and bfloat16 are widened.

    Args:
        model: A `SAM`.
        source: Path or URI.

    Raises:
        WeightsError: If the file is unreadable or unsafe, or if a tensor of it or a variable of
            the model is left over; the model is then unchanged, unless a value is not finite.
    """
    expected = expected_shapes(of_model(model))
    variables = _variables(model, expected)
    with open_weights(source) as opened:
        tensors = require_fit(opened, expected, source)
        for name, variable in variables.items():
            values: Array = tensors[name].read_float32()
            variable.assign(kernel_to_keras(values) if is_kernel(name) else values)


def official_tensors(model: Any) -> dict[str, SourceTensor]:
    """Give the variables of a built `SAM` as the tensors of an official state dict, float32.

    Nothing is copied before a tensor is read.
    """
    expected = expected_shapes(of_model(model))
    return {
        name: SourceTensor(name, expected[name], "float32", _VariableReader(variable, name))
        for name, variable in _variables(model, expected).items()
    }


class _VariableReader:
    def __init__(self, variable: Any, name: str) -> None:
        self._variable, self._name = variable, name

    def __call__(self) -> Array:
        from keras import ops

        values: Array = np.asarray(
            ops.convert_to_numpy(ops.cast(self._variable, "float32")), dtype=np.float32
        )
        return kernel_to_torch(values) if is_kernel(self._name) else values


def _variables(model: Any, names: Any) -> dict[str, Any]:
    found = {name: _variable(model, name) for name in names}
    held = {id(variable) for variable in model.variables}
    reached = {id(variable) for variable in found.values()}
    if held != reached or len(reached) != len(found):
        strangers = [v.path for v in model.variables if id(v) not in reached]
        raise WeightsError(
            "Expected a SAM whose variables are those of the official state dict. "
            f"Received: a model with others: {strangers[:8]}"
        )
    return found


def _variable(model: Any, name: str) -> Any:
    *path, parameter = name.replace(".patch_embed.proj.", ".patch_embed.").split(".")
    owner, previous = model, ""
    for part in path:
        if part.isdigit():
            owner = owner[_STACK_POSITIONS.get(previous, {}).get(part, int(part))]
        else:
            owner = getattr(owner, part)
        previous = part
    if parameter not in ("weight", "bias"):
        return getattr(owner, parameter)
    if hasattr(owner, "assign"):
        return owner
    attributes = ("kernel", "gamma") if parameter == "weight" else ("bias", "beta")
    return next(getattr(owner, attribute) for attribute in attributes if hasattr(owner, attribute))
