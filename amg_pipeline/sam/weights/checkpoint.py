"""Opens a weights file of any supported format, told by its first bytes."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from amg_pipeline.errors import WeightsError
from amg_pipeline.sam.weights.architecture import Shape
from amg_pipeline.sam.weights.keras_h5 import read_keras_h5
from amg_pipeline.sam.weights.names import Translation, translate
from amg_pipeline.sam.weights.safetensors_file import read_safetensors
from amg_pipeline.sam.weights.source import Source, local_files, shown
from amg_pipeline.sam.weights.tensors import Checkpoint, SourceTensor, listed
from amg_pipeline.sam.weights.torch_pickle import read_torch_checkpoint

_KERAS_WEIGHTS = "model.weights.h5"

#: A `.keras` archive is not compressed by Keras; a member that grows more than this is a bomb.
_MAX_EXPANSION = 100

_FORMATS = {
    ("torch", "official"): "pth",
    ("safetensors", "official"): "safetensors",
    ("safetensors", "huggingface"): "huggingface",
    ("torch", "huggingface"): "huggingface",
    ("weights.h5", "kerashub"): "kerashub",
    ("keras", "kerashub"): "kerashub",
    ("weights.h5", "keras"): "weights.h5",
    ("keras", "keras"): "keras",
}


@dataclass(frozen=True, slots=True)
class OpenedWeights:
    """A weights file whose tensors can be read, as the official state dict.

    Attributes:
        format: `pth`, `safetensors`, `huggingface`, `kerashub`, `weights.h5` or `keras`.
        translation: The tensors under their official names.
        checkpoint: The file as it is.
    """

    format: str
    translation: Translation
    checkpoint: Checkpoint

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shapes by official name."""
        return {name: tensor.shape for name, tensor in self.translation.tensors.items()}


@contextmanager
def open_weights(source: Source) -> Iterator[OpenedWeights]:
    """Open weights for as long as the context lasts.

    Args:
        source: Path or URI of a file, or of a folder that Hugging Face or KerasHub wrote.

    Raises:
        WeightsError: If there is nothing, or it is in no supported format, damaged or unsafe.
    """
    with ExitStack() as stack:
        files = stack.enter_context(local_files(source))
        parts = [_open_file(file, stack, source) for file in files]
        checkpoint = _merged(parts)
        translation = translate(checkpoint.tensors.values())
        name = _FORMATS.get((checkpoint.format, translation.naming), checkpoint.format)
        yield OpenedWeights(name, translation, checkpoint)


def require_fit(
    opened: OpenedWeights, expected: dict[str, Shape], source: Source
) -> dict[str, SourceTensor]:
    """Pair the file's tensors with the expected ones, each exactly once.

    Returns:
        The tensors by official name, in the order of `expected`.

    Raises:
        WeightsError: If any is left over on either side, or has another shape.
    """
    tensors = opened.translation.tensors
    problems = []
    missing = {name: shape for name, shape in expected.items() if name not in tensors}
    if missing:
        problems.append(f"missing: {listed(missing)}")
    unexpected = leftovers(opened, expected)
    if unexpected:
        problems.append(f"left over: {listed(unexpected)}")
    misshapen = {
        f"{name}, expected {shape}, received": tensors[name].shape
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape
    }
    if misshapen:
        problems.append(f"of another shape: {listed(misshapen)}")
    if problems:
        raise WeightsError(
            f"Expected weights that fill this model exactly. Received: {shown(source)}, "
            f"{'; '.join(problems)}"
        )
    return {name: tensors[name] for name in expected}


def leftovers(opened: OpenedWeights, expected: dict[str, Shape]) -> tuple[SourceTensor, ...]:
    """List the file's tensors that have no place among the expected ones."""
    tensors = opened.translation.tensors
    strangers = tuple(tensor for name, tensor in tensors.items() if name not in expected)
    return opened.translation.unknown + strangers


def _open_file(path: Path, stack: ExitStack, source: Source) -> Checkpoint:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise WeightsError(
            f"Expected readable weights at {shown(source)}. Received: {type(error).__name__}"
        ) from None
    if head.startswith(b"PK\x03\x04"):
        return _open_zip(path, stack)
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        return read_keras_h5(path)
    if head[8:9] == b"{":
        return read_safetensors(path)
    if head[:1] == b"\x80":
        raise WeightsError(
            "Expected a .pth in torch's zip format. Received: a bare pickle (torch before 1.6); "
            "load it in a torch that you trust it to, and torch.save it again"
        )
    raise WeightsError(
        "Expected weights as .pth, .safetensors, .keras, .weights.h5 or a Hugging Face or KerasHub "
        f"folder. Received: {shown(source)}, which begins with {head[:8]!r}"
    )


def _open_zip(path: Path, stack: ExitStack) -> Checkpoint:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if _KERAS_WEIGHTS not in names:
                return read_torch_checkpoint(path)
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="amg-keras-"))
            weights = Path(folder) / _KERAS_WEIGHTS
            info = archive.getinfo(_KERAS_WEIGHTS)
            if info.file_size > _MAX_EXPANSION * max(info.compress_size, 1):
                raise WeightsError(
                    "Expected weights that unpack to a sane size. "
                    f"Received: {info.compress_size} bytes that become {info.file_size}"
                )
            with archive.open(info) as packed, weights.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise WeightsError(
            f"Expected a whole archive. Received: {path.name}, damaged or cut off ({error})"
        ) from None
    opened = read_keras_h5(weights)
    return Checkpoint("keras", opened.tensors, opened.metadata)


def _merged(parts: list[Checkpoint]) -> Checkpoint:
    if len(parts) == 1:
        return parts[0]
    tensors: dict[str, SourceTensor] = {}
    for part in parts:
        twice = tensors.keys() & part.tensors.keys()
        if twice:
            raise WeightsError(f"Expected each tensor in one file. Received twice: {min(twice)!r}")
        tensors.update(part.tensors)
    return Checkpoint(parts[0].format, tensors, parts[0].metadata)
