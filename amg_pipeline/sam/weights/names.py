"""Translates names and layouts of a weights file into those of the official state dict.

The official names with PyTorch's layouts are the common language of this package: every reader is
translated into it, every writer and the model's variables are translated from it. A name that no
table knows is reported, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.name_tables import HUGGING_FACE, KERAS_HUB, OWN_KERAS, Table
from amg_pipeline.sam.weights.tensors import Array, SourceTensor

#: Modules whose `weight` is a table to look up, not a matrix to multiply with; Keras stores such
#: tables as PyTorch does.
_LOOKUP_TABLES = frozenset(
    ("point_embeddings", "not_a_point_embed", "no_mask_embed", "iou_token", "mask_tokens")
)

_TABLES: dict[str, Table] = {
    "huggingface": HUGGING_FACE,
    "kerashub": KERAS_HUB,
    "keras": OWN_KERAS,
}
#: Namings whose kernels are laid out as Keras does.
_KERAS_LAYOUTS = frozenset(("kerashub", "keras"))

#: One name of each naming that no other has.
_FINGERPRINTS = (
    ("official", re.compile(r"image_encoder\.patch_embed\.proj\.weight")),
    ("huggingface", re.compile(r"vision_encoder\.patch_embed\.projection\.weight")),
    ("kerashub", re.compile(r"(image_encoder/)?layers/vi_t_det_patching_and_embedding/.*")),
    ("keras", re.compile(r"(image_encoder|layers/image_encoder_vi_t)/blocks/block/norm1/vars/0")),
)

_PLACEHOLDERS = {
    "{i}": r"(0|[1-9]\d*)",
    "{n}": r"(|_[1-9]\d*)",
    "{p}": r"(?P<parameter>weight|bias|[01])",
}
_PARAMETERS = {"0": "weight", "1": "bias"}


@dataclass(frozen=True, slots=True)
class Translation:
    """Official tensors, and what could not be translated.

    Attributes:
        naming: Which names the file uses: `official`, `huggingface`, `kerashub` or `keras`.
        tensors: By official name, in PyTorch's layout.
        unknown: Tensors whose names mean nothing here.
    """

    naming: str
    tensors: Mapping[str, SourceTensor]
    unknown: tuple[SourceTensor, ...]


def translate(tensors: Iterable[SourceTensor]) -> Translation:
    """Rename and rearrange the tensors of a file as in the official state dict.

    Args:
        tensors: As the file has them.

    Returns:
        The translation. Equal copies of a tied tensor count as one.

    Raises:
        WeightsError: If two tensors of different values claim the same place, or the file is of no
            known naming.
    """
    tensors = list(tensors)
    naming = _naming(tensors)
    found: dict[str, SourceTensor] = {}
    unknown: list[SourceTensor] = []
    for tensor in tensors:
        name = official_name(naming, tensor.name)
        if name is None:
            unknown.append(tensor)
            continue
        if naming in _KERAS_LAYOUTS and is_kernel(name):
            translated = _kernel_to_torch(tensor, name)
        else:
            translated = tensor.rearranged(name, tensor.shape, _unchanged)
        if name in found:
            _require_equal(name, found[name], translated)
        else:
            found[name] = translated
    if naming == "huggingface":
        found = _number_head_layers(found)
    return Translation(naming, found, tuple(unknown))


def official_name(naming: str, name: str) -> str | None:
    """Translate one name; None if the naming has no such name.

    Head layers of Hugging Face files keep a provisional name until their number is known.
    """
    if naming == "official":
        return name
    for pattern, template in _compiled(naming):
        match = pattern.fullmatch(name)
        if match:
            return _fill(template, match)
    return None


def is_kernel(name: str) -> bool:
    """Whether an official tensor is laid out otherwise in Keras (a matrix or a convolution)."""
    module, _, parameter = name.rpartition(".")
    return parameter == "weight" and not _LOOKUP_TABLES & set(module.split("."))


def kernel_to_torch(values: Array) -> Array:
    """Rearrange a Keras kernel as PyTorch does; vectors (of norms) stay as they are.

    Dense `(in, out)` becomes `(out, in)`, convolution `(h, w, in, out)` becomes
    `(out, in, h, w)`, and transposed convolution `(h, w, out, in)` becomes `(in, out, h, w)`.
    """
    return values.transpose(_AXES_TO_TORCH[values.ndim])


def kernel_to_keras(values: Array) -> Array:
    """Undo `kernel_to_torch`."""
    return values.transpose(_AXES_TO_KERAS[values.ndim])


_AXES_TO_TORCH = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
_AXES_TO_KERAS = {rank: tuple(np.argsort(axes).tolist()) for rank, axes in _AXES_TO_TORCH.items()}


def _kernel_to_torch(tensor: SourceTensor, name: str) -> SourceTensor:
    axes = _AXES_TO_TORCH.get(len(tensor.shape))
    if axes is None:
        raise WeightsError(
            f"Expected a vector, matrix or convolution for {name!r}. "
            f"Received: {tensor.name!r} of shape {tensor.shape}"
        )
    shape = tuple(tensor.shape[axis] for axis in axes)
    return tensor.rearranged(name, shape, kernel_to_torch)


def _unchanged(values: Array) -> Array:
    return values


def _naming(tensors: Iterable[SourceTensor]) -> str:
    names = [tensor.name for tensor in tensors]
    for naming, pattern in _FINGERPRINTS:
        if any(pattern.fullmatch(name) for name in names):
            return naming
    shown = ", ".join(sorted(names)[:4]) or "no tensors"
    raise WeightsError(
        "Expected the names of the official checkpoints, of Hugging Face's SamModel, of KerasHub's "
        f"SAM or of this package. Received: {shown}"
    )


@cache
def _compiled(naming: str) -> list[tuple[re.Pattern[str], str]]:
    compiled = []
    for pattern, template in _TABLES[naming]:
        for placeholder, expression in _PLACEHOLDERS.items():
            pattern = pattern.replace(placeholder, expression)
        compiled.append((re.compile(pattern), template))
    return compiled


def _fill(template: str, match: re.Match[str]) -> str:
    parameter = match.re.groupindex.get("parameter")

    def group(reference: re.Match[str]) -> str:
        number = int(reference[1])
        text = match[number]
        if number == parameter:
            return _PARAMETERS.get(text, text)
        return (text.removeprefix("_") or "0") if text.startswith("_") or not text else text

    return re.sub(r"\\(\d)", group, template)


_PROVISIONAL = re.compile(r"(.+\.layers)\.(first|inner\d+|last)\.(weight|bias)")


def _number_head_layers(tensors: Mapping[str, SourceTensor]) -> dict[str, SourceTensor]:
    depths: dict[str, int] = {}
    for name in tensors:
        match = _PROVISIONAL.fullmatch(name)
        if match and match[3] == "weight":
            depths[match[1]] = depths.get(match[1], 0) + 1
    result = {}
    for name, tensor in tensors.items():
        match = _PROVISIONAL.fullmatch(name)
        if match:
            name = f"{match[1]}.{_head_layer(match[2], depths.get(match[1], 0))}.{match[3]}"
        result[name] = tensor.rearranged(name, tensor.shape, _unchanged)
    return result


def _head_layer(position: str, depth: int) -> int:
    if position == "first":
        return 0
    return depth - 1 if position == "last" else int(position.removeprefix("inner")) + 1


def _require_equal(name: str, first: SourceTensor, second: SourceTensor) -> None:
    if first.shape != second.shape or not np.array_equal(first.read(), second.read()):
        raise WeightsError(
            f"Expected copies of {name!r} to be equal. Received: two tensors that differ"
        )
