"""Make `sam_goldens.npz`: what the reference's model gives for a small SAM.

The weights are not stored: both sides draw them from a seed (`benchmarks.seeded_weights`). Run it
from the root of the repository in the environment that `make parity` builds:

    PYTHONPATH=. .venv-parity/bin/python tests/reference/make_sam_goldens.py

What it stores, in our layouts (channels last):

- `image`: the input, of odd size and larger than the model frame.
- `patches`, `block_0`, ..., `image_embedding`: the image encoder, step by step.
- `sparse`, `dense`, `tokens`, `features`: prompt encoder and two-way transformer for `STEPS_CASE`.
- `CASE|low_res_logits`, `CASE|iou_predictions`: by prompt case.
- `CASE|masks`, `CASE|undecided`: bits of the full-size masks, and of the pixels that rounding may
  decide either way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.mask_agreement import UNDECIDED_LOGIT
from benchmarks.photos import load_photo
from benchmarks.prompt_cases import prompt_cases
from benchmarks.reference_model import build_reference, run_reference
from benchmarks.seeded_weights import MODELS, seeded_state_dict

GOLDENS = Path(__file__).with_name("sam_goldens.npz")
#: The case with every kind of prompt, whose inner steps are stored.
STEPS_CASE = "2 prompts of 2 points, box, mask"
_SIZE_WH = (75, 51)


def main() -> None:
    """Run the reference and write the file."""
    torch.manual_seed(0)
    model = MODELS["small"]
    sam = build_reference(model.architecture, seeded_state_dict(model))
    image = load_photo("cat", size_wh=_SIZE_WH)
    cases = prompt_cases(*image.shape[:2], 4 * model.architecture.grid_size)
    arrays: dict[str, NDArray[Any]] = {"image": image}
    remove = [
        module.register_forward_hook(_keep(arrays, name)) for name, module in _encoder_steps(sam)
    ]
    embedding, outputs = run_reference(sam, image, cases)
    for handle in remove:
        handle.remove()
    arrays["image_embedding"] = embedding
    for case, output in outputs.items():
        arrays[f"{case}|low_res_logits"] = output["low_res_logits"]
        arrays[f"{case}|iou_predictions"] = output["iou_predictions"]
        arrays[f"{case}|masks"] = np.packbits(output["logits"] > 0)
        arrays[f"{case}|undecided"] = np.packbits(np.abs(output["logits"]) < UNDECIDED_LOGIT)
    arrays |= _decoder_steps(sam, image, [case for case in cases if case.name == STEPS_CASE])
    np.savez_compressed(GOLDENS, **{name: _rounded(values) for name, values in arrays.items()})
    print(f"{GOLDENS.name}: {len(arrays)} arrays, {GOLDENS.stat().st_size:,} bytes")


def _rounded(values: NDArray[Any]) -> NDArray[Any]:
    """Round floats to 16 bits of mantissa, far below the tolerance, which compresses them."""
    if values.dtype != np.float32:
        return values
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(0x40)) & np.uint32(0xFFFFFF80)).view(np.float32)


def _encoder_steps(sam: Any) -> list[tuple[str, Any]]:
    encoder = sam.image_encoder
    blocks = [(f"block_{i}", block) for i, block in enumerate(encoder.blocks)]
    return [("patches", encoder.patch_embed), *blocks]


def _keep(arrays: dict[str, NDArray[Any]], name: str) -> Any:
    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        arrays[name] = output.numpy()

    return hook


def _decoder_steps(sam: Any, image: NDArray[np.uint8], cases: list[Any]) -> dict[str, Any]:
    steps: dict[str, Any] = {}

    def keep_prompts(_module: Any, _inputs: Any, output: Any) -> None:
        sparse, dense = output
        steps["sparse"], steps["dense"] = sparse.numpy(), dense.permute(0, 2, 3, 1).numpy()

    def keep_attended(_module: Any, _inputs: Any, output: Any) -> None:
        steps["tokens"], steps["features"] = (tensor.numpy() for tensor in output)

    handles = [
        sam.prompt_encoder.register_forward_hook(keep_prompts),
        sam.mask_decoder.transformer.register_forward_hook(keep_attended),
    ]
    run_reference(sam, image, cases)
    for handle in handles:
        handle.remove()
    return steps


if __name__ == "__main__":
    main()
