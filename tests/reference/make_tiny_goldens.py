"""Make `tiny_goldens.json.gz`: the masks that the reference finds with the packaged weights.

To be made again whenever the packaged weights of `tiny` change, from the root of the repository in
the environment that `make parity` builds:

    PYTHONPATH=. .venv-parity/bin/python tests/reference/make_tiny_goldens.py

With `--weights` and thresholds of one's own it shows what other weights give.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights import weights_sha256
from amg_pipeline.sam.weights.architecture import expected_shapes, of_preset
from amg_pipeline.sam.weights.checkpoint import open_weights, require_fit
from amg_pipeline.sam.weights.source import packaged
from benchmarks.mask_agreement import with_undecided
from benchmarks.our_amg import SETTINGS, tiny_thresholds
from benchmarks.photos import golden_photos
from benchmarks.reference_amg import reference_point_predictor, run_reference_amg
from benchmarks.reference_model import build_reference

GOLDENS = Path(__file__).with_name("tiny_goldens.json.gz")


def main() -> None:
    """Run the reference on all images and settings and write the file."""
    arguments = _parse_arguments()
    thresholds = tiny_thresholds()
    for name in thresholds:
        given = getattr(arguments, name)
        thresholds[name] = thresholds[name] if given is None else given
    reference = _load_reference(arguments.weights)
    photos = golden_photos()
    masks: dict[str, list[dict[str, Any]]] = {}
    for settings_name, settings in SETTINGS.items():
        complete = {"points_per_side": arguments.points_per_side, **thresholds, **settings}
        for photo_name, photo in photos.items():
            found = run_reference_amg(reference, photo, complete)
            found = with_undecided(found, photo, reference_point_predictor(reference))
            masks[f"{settings_name}|{photo_name}"] = [mask.to_json() for mask in found]
            print(f"{settings_name}: {photo_name}: {len(found)} masks", flush=True)
    goldens = {
        "weights_sha256": weights_sha256("tiny", arguments.weights),
        "points_per_side": arguments.points_per_side,
        "thresholds": thresholds,
        "pixels_sha256": {
            name: hashlib.sha256(photo.tobytes()).hexdigest() for name, photo in photos.items()
        },
        "masks": masks,
    }
    text = json.dumps(goldens, separators=(",", ":"))
    # Without a time, so that the same masks make the same file.
    arguments.output.write_bytes(gzip.compress(text.encode(), mtime=0))
    total = sum(map(len, masks.values()))
    print(f"{arguments.output.name}: {total} masks, {arguments.output.stat().st_size:,} bytes")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--weights", help="the packaged ones if absent")
    parser.add_argument("--points-per-side", type=int, default=12)
    parser.add_argument("--pred-iou-thresh", type=float, help="tiny's own if absent")
    parser.add_argument("--stability-score-thresh", type=float, help="tiny's own if absent")
    parser.add_argument("--output", type=Path, default=GOLDENS)
    return parser.parse_args()


def _load_reference(weights: str | None) -> Any:
    """Read the weights without a model of ours: nothing of it can leak into the goldens."""
    source = packaged("tiny") if weights is None else weights
    architecture = of_preset(PRESETS["tiny"])
    with open_weights(source) as opened:
        tensors = require_fit(opened, expected_shapes(architecture), source)
        state_dict = {name: tensor.read_float32() for name, tensor in tensors.items()}
    return build_reference(architecture, state_dict)


if __name__ == "__main__":
    main()
