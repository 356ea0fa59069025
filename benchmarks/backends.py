"""Compare the JAX and PyTorch backends with TensorFlow, on the CPU: `make backends`.

    python -m benchmarks.backends [--weights PATH] [--points-per-side N] [--no-curves]

Each backend runs in a process of its own: prompts of every kind through the seeded models, and
automatic mask generation with the weights of `tiny`; and twenty steps of `fit`. Exits with 1 if a
backend's outputs are outside the tolerances that hold against the reference.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from benchmarks.mask_agreement import (
    MIN_IDENTICAL_SHARE,
    UNDECIDED_LOGIT,
    FoundMask,
    MaskAgreement,
    compare_masks,
    identical_share,
    with_undecided,
)
from benchmarks.our_amg import SETTINGS, our_point_predictor, run_our_amg, tiny_thresholds
from benchmarks.our_model import TOLERANCE, relative_error, run_ours
from benchmarks.photos import load_photo
from benchmarks.prompt_cases import prompt_cases
from benchmarks.seeded_weights import MODELS, build_seeded_sam
from benchmarks.training_curves import TOLERANCE as CURVE_TOLERANCE
from benchmarks.training_curves import loss_curve, worst_difference

if TYPE_CHECKING:
    from amg_pipeline.sam import SAM

#: What the others are compared with.
BASELINE = "tensorflow"
OTHERS = ("jax", "torch")
#: JAX on two devices, which share each step's images.
PARALLEL = "jax on two devices"
_MODELS = ("small", "low_rank", "tiny")
_PROMPT_PHOTOS = ("cat", "portrait")
#: Probability under which fewer identical masks than there should be are no chance.
_CREDIBLE = 0.01
_AMG_PHOTOS = ("coffee", "palace", "portrait")


def main() -> int:
    arguments = _parse_arguments()
    if arguments.worker is not None:
        _work(arguments)
        return 0
    with tempfile.TemporaryDirectory(prefix="amg-backends-") as folder:
        for backend in (BASELINE, *OTHERS):
            started = time.monotonic()
            _start_worker(backend, Path(folder), arguments)
            print(f"{backend}: ran in {time.monotonic() - started:.0f} s", flush=True)
        faults = [
            fault
            for backend in OTHERS
            for fault in (
                *_compare_outputs(Path(folder), backend),
                *_compare_amg(Path(folder), backend),
            )
        ]
        if arguments.curves:
            _start_worker("jax", Path(folder), arguments, two_devices=True)
            for backend in (*OTHERS, PARALLEL):
                faults += _compare_curves(Path(folder), backend)
    for fault in faults:
        print(f"FAILED: {fault}")
    print("backends: " + ("FAILED" if faults else "everything within tolerance"))
    return 1 if faults else 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", type=Path, help="weights of tiny; the packaged ones if absent")
    parser.add_argument("--points-per-side", type=int, default=16)
    parser.add_argument("--photos", nargs="+", default=list(_AMG_PHOTOS), help="for whole masks")
    parser.add_argument("--pred-iou-thresh", type=float, help="tiny's own if absent")
    parser.add_argument("--stability-score-thresh", type=float, help="tiny's own if absent")
    parser.add_argument(
        "--curves", action=argparse.BooleanOptionalAction, default=True, help="fit too: minutes"
    )
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--two-devices", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _start_worker(
    backend: str, folder: Path, arguments: argparse.Namespace, *, two_devices: bool = False
) -> None:
    options = ["--worker", backend, "--folder", str(folder), "--photos", *arguments.photos]
    if two_devices:
        options.append("--two-devices")
    if not arguments.curves:
        options.append("--no-curves")
    for name in ("weights", "points_per_side", "pred_iou_thresh", "stability_score_thresh"):
        value = getattr(arguments, name)
        if value is not None:
            options += [f"--{name.replace('_', '-')}", str(value)]
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    if two_devices:
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    subprocess.run(
        [sys.executable, "-m", "benchmarks.backends", *options], env=environment, check=True
    )


def _work(arguments: argparse.Namespace) -> None:
    """Run everything on the backend that `KERAS_BACKEND` names and write it to the folder."""
    import keras

    if keras.backend.backend() != arguments.worker:
        raise SystemExit(f"Keras runs on {keras.backend.backend()}, not on {arguments.worker}")
    if arguments.curves:
        curve = loss_curve(data_parallel=arguments.two_devices)
        name = PARALLEL if arguments.two_devices else arguments.worker
        (arguments.folder / f"{name}_curve.json").write_text(json.dumps(curve))
    if arguments.two_devices:
        return
    np.savez(arguments.folder / f"{arguments.worker}.npz", **_outputs())
    masks = _amg_masks(arguments)
    (arguments.folder / f"{arguments.worker}.json").write_text(json.dumps(masks))


def _outputs() -> dict[str, NDArray[np.generic]]:
    from keras import ops

    from amg_pipeline.sam.transforms import longest_side_size

    arrays: dict[str, NDArray[np.generic]] = {}
    for name in _MODELS:
        sam = build_seeded_sam(MODELS[name])
        low_res_size = 4 * MODELS[name].architecture.grid_size
        for photo_name in _PROMPT_PHOTOS:
            photo = load_photo(photo_name)
            height, width = photo.shape[:2]
            cases = prompt_cases(height, width, low_res_size)
            # The whole call embeds the image anew; the larger model does so once.
            whole_calls = len(cases) if name == "small" else 1
            embedding, outputs = run_ours(sam, photo, cases, whole_calls=whole_calls)
            arrays[f"{name}|{photo_name}|image embedding|embedding"] = embedding
            input_size = longest_side_size(height, width, sam.image_encoder.img_size)
            for case, found in outputs.items():
                prefix = f"{name}|{photo_name}|{case}"
                logits = sam.postprocess_masks(
                    ops.convert_to_tensor(found["low_res_logits"]), input_size, (height, width)
                )
                undecided = np.abs(ops.convert_to_numpy(logits)) < UNDECIDED_LOGIT
                arrays |= {f"{prefix}|{key}": value for key, value in found.items()}
                arrays[f"{prefix}|undecided"] = undecided
            arrays[f"{name}|{photo_name}|in parts|low_res_logits"] = _logits_in_parts(
                sam, embedding
            )
    return arrays


def _logits_in_parts(sam: SAM, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make masks as the generator does: in parts of the grid, of which the lower are not wanted."""
    from keras import ops

    from amg_pipeline.sam.grid_parts import GridParts

    decoder, (rows, columns) = sam.mask_decoder, sam.image_encoder.grid_size
    points = np.array([[[20.0, 30.0]], [[90.0, 60.0]]], np.float32)
    sparse, dense = sam.prompt_encoder(points=(points, np.ones((2, 1), np.int32)))
    tokens, image = decoder.attend(
        ops.convert_to_tensor(embedding), sam.prompt_encoder.get_dense_pe(), sparse, dense
    )
    parts = GridParts((rows, columns), (2, columns))
    upper = replace(parts, wanted=parts.within(rows // 2, columns))
    logits: NDArray[np.float32] = ops.convert_to_numpy(
        decoder.mask_logits(decoder.mask_weights(tokens), image, upper)
    )
    return logits


def _amg_masks(arguments: argparse.Namespace) -> dict[str, list[dict[str, object]]]:
    from amg_pipeline.amg.generator import AutomaticMaskGenerator
    from amg_pipeline.sam import SAM

    weights = "default" if arguments.weights is None else str(arguments.weights)
    sam = SAM.from_variant("tiny", weights=weights)
    thresholds = tiny_thresholds()
    for name in thresholds:
        given = getattr(arguments, name)
        thresholds[name] = thresholds[name] if given is None else given
    masks = {}
    for settings_name, settings in SETTINGS.items():
        generator = AutomaticMaskGenerator(
            sam,
            output_mode="coco_rle",
            points_per_side=arguments.points_per_side,
            **thresholds,
            **settings,
        )
        for photo_name in arguments.photos:
            photo = load_photo(photo_name)
            found = run_our_amg(generator, photo)
            if arguments.worker == BASELINE:
                found = with_undecided(found, photo, our_point_predictor(sam))
            masks[f"{settings_name}|{photo_name}"] = [mask.to_json() for mask in found]
    return masks


def _compare_outputs(folder: Path, backend: str) -> list[str]:
    """Compare embeddings, logits, scores and masks; print the largest difference of each."""
    worst: dict[str, float] = {}
    faults = []
    with np.load(folder / f"{BASELINE}.npz") as expected, np.load(folder / f"{backend}.npz") as got:
        for key in expected.files:
            what = key.rpartition("|")[2]
            if what == "undecided":
                continue
            if what == "masks":
                undecided = expected[key.replace("|masks", "|undecided")]
                error = float(((expected[key] != got[key]) & ~undecided).sum())
                limit = 0.0
            else:
                error, limit = relative_error(got[key], expected[key]), TOLERANCE
            worst[what] = max(worst.get(what, 0.0), error)
            if error > limit:
                faults.append(f"{backend}: {key.replace('|', ', ')} differs by {error:.1e}")
    shown = ", ".join(f"{what} {error:.1e}" for what, error in worst.items())
    print(f"{backend} against {BASELINE}, largest differences: {shown}")
    return faults


def _compare_curves(folder: Path, backend: str) -> list[str]:
    expected, got = (
        json.loads((folder / f"{name}_curve.json").read_text()) for name in (BASELINE, backend)
    )
    worst = worst_difference(expected, got)
    print(
        f"{backend}: {len(got)} steps of fit, loss {got[0]:.4f} to {got[-1]:.4f}, "
        f"largest relative difference {worst:.1e}"
    )
    return [] if worst <= CURVE_TOLERANCE else [f"{backend}: losses differ by {worst:.1e}"]


def _compare_amg(folder: Path, backend: str) -> list[str]:
    expected, got = (
        {key: [FoundMask.from_json(mask) for mask in masks] for key, masks in document.items()}
        for document in (
            json.loads((folder / f"{name}.json").read_text()) for name in (BASELINE, backend)
        )
    )
    agreements: dict[str, MaskAgreement] = {}
    faults = []
    for key, masks in expected.items():
        name, _, photo = key.rpartition("|")
        height, width = load_photo(photo).shape[:2]
        agreements[key] = compare_masks(
            masks,
            got[key],
            height=height,
            width=width,
            min_region_area=SETTINGS[name]["min_mask_region_area"],
        )
        print(f"{backend}: {key.replace('|', ', ')}: {agreements[key]}")
        if not agreements[key].passes:
            faults.append(f"{backend}: {key.replace('|', ', ')}: {agreements[key]}")
    share, total = identical_share(agreements.values()), sum(map(len, expected.values()))
    print(f"{backend}: {share:.2%} of {total} RLEs byte-identical to {BASELINE}'s")
    # One pixel in millions that rounds differently makes a mask differ: with so few photos, some
    # masks more or less are chance.
    chance = binomtest(round(share * total), total, MIN_IDENTICAL_SHARE, alternative="less").pvalue
    if chance < _CREDIBLE:
        faults.append(f"{backend}: only {share:.2%} of RLEs are byte-identical")
    if total < 10 * len(expected):
        faults.append(f"too few masks to compare: {[len(masks) for masks in expected.values()]}")
    return faults


if __name__ == "__main__":
    sys.exit(main())
