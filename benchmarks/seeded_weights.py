"""Models whose every tensor is drawn at random from a seed, to be compared with other code.

A freshly initialised SAM hides errors: its biases, positions and relative positions are zero. Here
every tensor is clearly different from zero, at a scale that keeps activations near one, so that a
wrong layout, a missing term or a wrong order shows. Each tensor has a generator of its own, so that
values depend on the seed and the tensor's name alone.
"""

from __future__ import annotations

import math
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights.architecture import SamArchitecture, expected_shapes, of_preset

if TYPE_CHECKING:
    from amg_pipeline.sam.model import SAM

SEED = 20230405

#: A SAM that runs in milliseconds. Windows of 3 do not divide the grid of 8, so they are padded.
SMALL = SamArchitecture(
    img_size=64,
    patch_size=8,
    embed_dim=32,
    depth=3,
    num_heads=2,
    window_size=3,
    global_attn_indexes=(1,),
    out_chans=32,
    mlp_dim=48,
    iou_head_hidden_dim=24,
)

#: Standard deviation that low-res logits must have on a photo, for a comparison to mean something.
LOGIT_STD_RANGE = (2.0, 10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityModel:
    """A model to compare.

    Attributes:
        architecture: Its sizes.
        logit_gain: Factor on the last layer of the hypernetworks, found by measuring once, which
            brings low-res logits into `LOGIT_STD_RANGE`.
        num_values: Values of all variables without the fixed Fourier matrix; None if nobody
            published them.
    """

    architecture: SamArchitecture
    logit_gain: float
    num_values: int | None = None


MODELS: dict[str, ParityModel] = {
    "small": ParityModel(architecture=SMALL, logit_gain=14.0),
    # Wide enough a decoder for the low-rank form, behind an encoder that runs in milliseconds.
    "low_rank": ParityModel(
        architecture=replace(SMALL, img_size=128, depth=1, global_attn_indexes=(0,), out_chans=256),
        logit_gain=6.0,
    ),
    "tiny": ParityModel(architecture=of_preset(PRESETS["tiny"]), logit_gain=6.0),
    "vit_b": ParityModel(
        architecture=of_preset(PRESETS["vit_b"]), logit_gain=6.0, num_values=93_735_472
    ),
    "vit_l": ParityModel(
        architecture=of_preset(PRESETS["vit_l"]), logit_gain=6.0, num_values=312_342_832
    ),
    "vit_h": ParityModel(
        architecture=of_preset(PRESETS["vit_h"]), logit_gain=6.0, num_values=641_090_608
    ),
}


def draw_tensor(
    name: str, shape: tuple[int, ...], *, seed: int, logit_gain: float = 1.0
) -> NDArray[np.float32]:
    """Draw the values of one tensor.

    Args:
        name: Official name.
        shape: Shape in PyTorch's layout.
        seed: What the values depend on besides the name.
        logit_gain: Factor on the last layer of the hypernetworks.
    """
    # From the raw stream, which NumPy keeps for ever, and by exact steps: the same values anywhere.
    raw = np.random.PCG64([seed, zlib.crc32(name.encode())]).random_raw(math.prod(shape))
    uniform = (raw >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - np.float32(1.0)
    values = uniform.reshape(shape) * np.float32(math.sqrt(3.0) * _scale(name, shape))
    if _is_norm_weight(name, shape):
        values += np.float32(1.0)
    if "output_hypernetworks_mlps" in name and ".layers.2." in name:
        values *= np.float32(logit_gain)
    return values


def _scale(name: str, shape: tuple[int, ...]) -> float:
    """Choose a tensor's standard deviation by what it is."""
    if "rel_pos" in name:
        return 1.0 / math.sqrt(shape[-1])  # added to logits of standard deviation one
    if "pos_embed" in name or "gaussian_matrix" in name or _is_token(name):
        return 1.0
    if len(shape) == 1:
        return 0.2  # biases, and the deviation of norms from one
    if "output_upscaling" in name:
        return 1.0 / math.sqrt(shape[0])  # (in, out, 2, 2) with stride 2: one tap an output
    return 1.0 / math.sqrt(math.prod(shape[1:]))


def _is_norm_weight(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 1 and name.endswith(".weight")


def _is_token(name: str) -> bool:
    endings = ("_embed.weight", "_token.weight", "_tokens.weight")
    return name.endswith(endings) or "point_embeddings" in name


def seeded_state_dict(model: ParityModel, *, seed: int = SEED) -> dict[str, NDArray[np.float32]]:
    """Draw all tensors of a model, by official name and in PyTorch's layout."""
    return {
        name: draw_tensor(name, shape, seed=seed, logit_gain=model.logit_gain)
        for name, shape in expected_shapes(model.architecture).items()
    }


def build_seeded_sam(model: ParityModel, *, seed: int = SEED) -> SAM:
    """Build our model with seeded weights, loaded from an official safetensors file."""
    from amg_pipeline.sam.weights import load_weights
    from amg_pipeline.sam.weights.conversion import build_model

    sam: SAM = build_model(model.architecture)
    with tempfile.TemporaryDirectory(prefix="amg-seeded-") as folder:
        path = Path(folder) / "seeded.safetensors"
        write_seeded_weights(model, path, seed=seed)
        load_weights(sam, str(path))
    return sam


def write_seeded_weights(model: ParityModel, path: Path, *, seed: int = SEED) -> None:
    """Write a model's seeded weights as an official state dict, one tensor in memory at a time."""
    from amg_pipeline.sam.weights.saving import write_state_dict
    from amg_pipeline.sam.weights.tensors import SourceTensor

    def reader(name: str, shape: tuple[int, ...]) -> Callable[[], NDArray[Any]]:
        return lambda: draw_tensor(name, shape, seed=seed, logit_gain=model.logit_gain)

    tensors = {
        name: SourceTensor(name, shape, "float32", reader(name, shape))
        for name, shape in expected_shapes(model.architecture).items()
    }
    write_state_dict(tensors, model.architecture, path)
