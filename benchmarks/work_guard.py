"""Guards the work of mask generation: operations, calls and bytes, which no busy machine changes.

    python -m benchmarks.work_guard [--models low_rank tiny vit_b] [--update]

Counts what one photo costs and compares with `benchmarks/results/work.json`; exits with 1 if
anything costs more. `low_rank` is compared by `make test` too. `--update` writes down
what was counted, after a change that is meant. The small models answer 4 x 4 points in batches of
8, `vit_b` 8 x 8 in one of 64; a mask of some third of the prompts passes, by thresholds that no
score is near.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

from benchmarks.photos import load_photo
from benchmarks.seeded_weights import MODELS, ParityModel, build_seeded_sam
from benchmarks.work_counter import WorkRecorder

RESULTS = Path(__file__).parent / "results" / "work.json"
#: By how much a number may exceed what is written down: rounding may pass another tile or mask.
TOLERANCE = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What is counted of a model.

    Attributes:
        model: Its sizes, for seeded weights.
        points_per_side: Density of the grid.
        points_per_batch: Prompts of a decoder call.
        pred_iou_thresh: Passes a mask of about a third of the prompts.
    """

    model: ParityModel
    points_per_side: int = 4
    points_per_batch: int = 8
    pred_iou_thresh: float


CASES = {
    "low_rank": Case(model=MODELS["low_rank"], pred_iou_thresh=0.233),
    "tiny": Case(model=MODELS["tiny"], pred_iou_thresh=0.4835),
    "vit_b": Case(
        model=MODELS["vit_b"], points_per_side=8, points_per_batch=64, pred_iou_thresh=0.467
    ),
}


class Counted:
    """A case's generator, ready to have its work counted.

    Args:
        case: What to count.
        sam: The case's model if it is there already.
        **changed: Settings in place of the case's.
    """

    def __init__(self, case: Case, sam: Any = None, **changed: Any) -> None:
        from amg_pipeline.amg.generator import AutomaticMaskGenerator
        from amg_pipeline.sam.segmenter import SamSegmenter

        settings = {
            "points_per_side": case.points_per_side,
            "points_per_batch": case.points_per_batch,
            "pred_iou_thresh": case.pred_iou_thresh,
            "stability_score_thresh": 0.0,
            **changed,
        }
        # XLA would take longer than all else, and the same is counted without.
        self._recorder = WorkRecorder(compiles=False)
        with self._recorder:
            # One thread: the recorder counts without locks.
            segmenter = SamSegmenter(
                sam or build_seeded_sam(case.model),
                points_per_batch=settings["points_per_batch"],
                threads=1,
            )
            self._generator = AutomaticMaskGenerator(segmenter, **settings)

    def count(self) -> dict[str, Any]:
        """Count the work of one photo."""
        with self._recorder.counting() as calls:
            self._generator.find(load_photo("cat", size_wh=(225, 150)))
        return calls.to_json()


def faults(counted: dict[str, Any], allowed: dict[str, Any]) -> list[str]:
    """Name what costs more than is written down."""
    pairs = [
        (name, counted[name], allowed[name]) for name in ("flops", "bytes_to_host", "transfers")
    ]
    pairs += [
        (f"calls of {name}", number, allowed["functions"].get(name, 0))
        for name, number in counted["functions"].items()
    ]
    return [
        f"{name}: {found:,}, not {limit:,}"
        for name, found, limit in pairs
        if found > limit * (1 + TOLERANCE)
    ]


def allowed_work() -> dict[str, Any]:
    """Read what is written down, by case."""
    if not RESULTS.is_file():
        return {}
    written: dict[str, Any] = json.loads(RESULTS.read_text())
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=sorted(CASES), default=["low_rank", "tiny"])
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    allowed = allowed_work()
    is_within = True
    for name in arguments.models:
        counted = Counted(CASES[name]).count()
        if arguments.update:
            allowed[name] = counted
        found = faults(counted, allowed[name]) if name in allowed else ["nothing written down"]
        is_within &= not found
        print(f"{name}: {counted['flops'] / 1e9:,.2f} GFLOP; " + ("; ".join(found) or "as it was"))
    if arguments.update:
        RESULTS.write_text(json.dumps(allowed, indent=1) + "\n")
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
