"""The model against the reference: image embedding, low-res logits, predicted IoU and masks."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

# Before anything that imports TensorFlow: PyTorch crashes when it is loaded after it.
from benchmarks.reference_model import build_reference, num_values, run_reference  # isort: skip

from benchmarks.mask_agreement import UNDECIDED_LOGIT
from benchmarks.our_model import TOLERANCE, Outputs, relative_error, run_ours
from benchmarks.photos import prompt_photos
from benchmarks.prompt_cases import prompt_cases
from benchmarks.seeded_weights import (
    LOGIT_STD_RANGE,
    MODELS,
    SEED,
    ParityModel,
    build_seeded_sam,
    draw_tensor,
)

if TYPE_CHECKING:
    from amg_pipeline.sam.model import SAM


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityRow:
    """One line of the table.

    Attributes:
        model: Which model.
        image: Which photo, and its size.
        what: Which prompts; "image embedding" for the encoder.
        embedding: Largest difference of embeddings over the largest absolute value; None where
            the row is about prompts.
        logits: The same of low-res logits.
        iou: The same of predicted IoU.
        differing_pixels: Pixels of full-size masks that differ.
        decided_pixels: Those of them where the reference's logit is not near the threshold.
    """

    model: str
    image: str
    what: str
    embedding: float | None = None
    logits: float | None = None
    iou: float | None = None
    differing_pixels: int = 0
    decided_pixels: int = 0

    @property
    def passes(self) -> bool:
        """Whether all differences are within their tolerances."""
        errors = [error for error in (self.embedding, self.logits, self.iou) if error is not None]
        return all(error <= TOLERANCE for error in errors) and self.decided_pixels == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParity:
    """What was found of one model."""

    model: str
    num_values: int
    logit_std: float
    ours_seconds: float
    reference_seconds: float
    rows: list[ParityRow]
    faults: list[str]

    @property
    def passes(self) -> bool:
        """Whether every row passes and nothing else was found wrong."""
        return not self.faults and all(row.passes for row in self.rows)


def compare_model(name: str) -> ModelParity:
    """Run ours, then the reference, with the same weights. Only one is in memory at a time."""
    model = MODELS[name]
    photos = prompt_photos()
    low_res_size = 4 * model.architecture.grid_size
    cases = {key: prompt_cases(*photo.shape[:2], low_res_size) for key, photo in photos.items()}
    with tempfile.TemporaryDirectory(prefix="amg-parity-") as folder:
        started = time.monotonic()
        sam = build_seeded_sam(model)
        faults = list(_count_faults(model, sam))
        # The cheap models go through the whole call for each prompt, the others for the first.
        whole_calls = len(next(iter(cases.values()))) if name in ("small", "tiny") else 1
        ours = {
            key: run_ours(sam, photo, cases[key], whole_calls=whole_calls)
            for key, photo in photos.items()
        }
        state_dict = _to_state_dict(sam, Path(folder))
        faults += _round_trip_faults(model, state_dict)
        del sam
        _release()
        ours_seconds = time.monotonic() - started
        started = time.monotonic()
        reference = build_reference(model.architecture, state_dict)
        del state_dict
        rows: list[ParityRow] = []
        stds: list[float] = []
        for key, photo in photos.items():
            embedding, outputs = run_reference(reference, photo, cases[key])
            label = f"{key} {photo.shape[1]} x {photo.shape[0]}"
            rows += _compare(name, label, ours.pop(key), (embedding, outputs))
            stds += [float(output["low_res_logits"].std()) for output in outputs.values()]
        count = num_values(reference)
    faults += _std_faults(stds)
    if model.num_values is not None and count != model.num_values:
        faults.append(f"the reference has {count} values, not {model.num_values}")
    return ModelParity(
        model=name,
        num_values=count,
        logit_std=float(np.median(stds)),
        ours_seconds=round(ours_seconds, 1),
        reference_seconds=round(time.monotonic() - started, 1),
        rows=rows,
        faults=faults,
    )


def _compare(
    name: str,
    image: str,
    ours: tuple[NDArray[np.float32], dict[str, Outputs]],
    reference: tuple[NDArray[np.float32], dict[str, Outputs]],
) -> Iterator[ParityRow]:
    yield ParityRow(
        model=name,
        image=image,
        what="image embedding",
        embedding=relative_error(ours[0], reference[0]),
    )
    # A single mask's is one number, which may be near zero by chance: one of the four of its head.
    largest_iou = max(float(np.abs(e["iou_predictions"]).max()) for e in reference[1].values())
    for case, expected in reference[1].items():
        found = ours[1][case]
        differs = found["masks"] != (expected["logits"] > 0)
        decided = differs & (np.abs(expected["logits"]) >= UNDECIDED_LOGIT)
        yield ParityRow(
            model=name,
            image=image,
            what=case,
            logits=relative_error(found["low_res_logits"], expected["low_res_logits"]),
            iou=relative_error(
                found["iou_predictions"], expected["iou_predictions"], largest=largest_iou
            ),
            differing_pixels=int(differs.sum()),
            decided_pixels=int(decided.sum()),
        )


def _to_state_dict(sam: SAM, folder: Path) -> dict[str, NDArray[np.float32]]:
    """Export our model to a file of the official names and read it with the format's own library.

    The file is mapped, so that the largest model is not held twice.
    """
    from safetensors.numpy import load_file

    from amg_pipeline.sam.weights import save_weights

    path = folder / "ours.safetensors"
    save_weights(sam, str(path))
    state_dict: dict[str, NDArray[np.float32]] = load_file(path)
    return state_dict


def _round_trip_faults(
    model: ParityModel, state_dict: dict[str, NDArray[np.float32]]
) -> Iterator[str]:
    for name, values in state_dict.items():
        drawn = draw_tensor(name, values.shape, seed=SEED, logit_gain=model.logit_gain)
        if not np.array_equal(values, drawn):
            yield f"{name} did not come back as it was drawn"


def _count_faults(model: ParityModel, sam: SAM) -> Iterator[str]:
    fourier = sam.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    count = sam.count_params() - int(np.prod(fourier.shape))
    if model.num_values is not None and count != model.num_values:
        yield f"our variables have {count} values, not {model.num_values}"


def _std_faults(stds: list[float]) -> Iterator[str]:
    low, high = LOGIT_STD_RANGE
    median = float(np.median(stds))
    if not low <= median <= high:
        yield f"low-res logits have a standard deviation of {median:.2f}, not {low} to {high}"


def _release() -> None:
    import keras

    keras.backend.clear_session()
    gc.collect()
