"""Compare with the reference implementation and print the table: `make parity`.

    python -m benchmarks.parity [--models small tiny vit_b vit_l vit_h] [--no-amg]

The model part gives both implementations the same seeded weights; the AMG part the weights of
`tiny`. Writes `benchmarks/results/parity.json`; models that are not run keep the results that are
there. Exits with 1 if anything is outside its tolerance.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Compared on the CPU, whatever the machine has; read when TensorFlow and PyTorch are imported.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

from benchmarks.amg_parity import AmgParity, compare_amg
from benchmarks.model_parity import ModelParity, compare_model
from benchmarks.our_amg import tiny_thresholds
from benchmarks.our_model import TOLERANCE
from benchmarks.seeded_weights import MODELS

RESULTS = Path(__file__).parent / "results" / "parity.json"
DEFAULT_MODELS = ("small", "tiny", "vit_b")
_PACKAGES = (
    "keras",
    "tensorflow",
    "numpy",
    "pillow",
    "torch",
    "torchvision",
    "segment-anything-py",
)


def main() -> int:
    arguments = _parse_arguments()
    results: dict[str, Any] = {"models": {}, "amg": {}}
    if arguments.results.is_file():
        results.update(json.loads(arguments.results.read_text()))
    results["environment"] = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in _PACKAGES},
    }
    passes = True
    for name in arguments.models:
        parity = compare_model(name)
        _print_model(parity)
        results["models"][name] = {**asdict(parity), "passes": parity.passes}
        passes &= parity.passes
        _write(arguments.results, results)
    if arguments.amg:
        given = {name: getattr(arguments, name) for name in tiny_thresholds()}
        amg = compare_amg(
            weights=arguments.weights,
            points_per_side=arguments.points_per_side,
            thresholds={name: value for name, value in given.items() if value is not None},
        )
        _print_amg(amg)
        results["amg"] = amg.to_json()
        passes &= amg.passes
        _write(arguments.results, results)
    print("parity: " + ("everything within tolerance" if passes else "FAILED"))
    return 0 if passes else 1


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="*", choices=sorted(MODELS), default=list(DEFAULT_MODELS))
    parser.add_argument("--amg", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--weights", type=Path, help="weights of tiny for the AMG part; the packaged ones if absent"
    )
    parser.add_argument("--points-per-side", type=int, default=32)
    parser.add_argument("--pred-iou-thresh", type=float, help="tiny's own if absent")
    parser.add_argument("--stability-score-thresh", type=float, help="tiny's own if absent")
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser.parse_args()


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


def _print_model(parity: ModelParity) -> None:
    print(
        f"\n{parity.model}: {parity.num_values:,} values, low-res logits of standard deviation "
        f"{parity.logit_std:.2f}; ours {parity.ours_seconds} s, reference "
        f"{parity.reference_seconds} s"
    )
    print(
        f"  {'image':32} {'prompt':34} {'embedding':>9} {'logits':>9} {'IoU':>9} "
        f"{'pixels':>7} {'decided':>7}"
    )
    for row in parity.rows:
        errors = " ".join(
            f"{'':>9}" if error is None else f"{error:9.1e}"
            for error in (row.embedding, row.logits, row.iou)
        )
        print(
            f"  {row.image:32} {row.what:34} {errors} {row.differing_pixels:7} "
            f"{row.decided_pixels:7}{'' if row.passes else '  FAILED'}"
        )
    for fault in parity.faults:
        print(f"  FAILED: {fault}")
    print(f"  largest allowed: {TOLERANCE:.0e}; pixels that differ may not be decided", flush=True)


def _print_amg(amg: AmgParity) -> None:
    print(f"\nautomatic mask generation with {amg.weights}, thresholds {amg.thresholds}")
    print(
        f"  {'settings':28} {'image':24} {'masks':>6} {'ours':>6} {'identical':>9} "
        f"{'min IoU':>8} {'pixels':>7} {'decided':>7} {'scores':>8} {'order':>6}"
    )
    for row in amg.rows:
        agreement = row.agreement
        print(
            f"  {row.settings:28} {row.image:24} {agreement.expected_masks:6} "
            f"{agreement.found_masks:6} {agreement.identical:9} {agreement.min_iou:8.5f} "
            f"{agreement.differing_pixels:7} {agreement.decided_pixels:7} "
            f"{agreement.max_score_error:8.1e} {agreement.order_faults:6}"
            f"{'' if agreement.passes else '  FAILED'}"
        )
    for settings, share in amg.identical_shares.items():
        print(f"  {settings}: {share:.2%} of RLEs byte-identical")
    for fault in amg.faults:
        print(f"  FAILED: {fault}")


if __name__ == "__main__":
    sys.exit(main())
