"""All contenders in one run: the same weights, photos, grid and thresholds, one at work at a time.

Each step of a stage is done by one contender after another, between two measurements of the
machine's rate of products, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_log import Log
from benchmarks.bench_parts import Settings
from benchmarks.contenders.process import ContenderError, ContenderProcess
from benchmarks.contenders.protocol import Task
from benchmarks.photos import load_photo
from benchmarks.seeded_weights import MODELS, write_seeded_weights

PEERS = ("ours", "ours, fast", "kerashub", "hugging face", "reference")
#: Share of masks that pass the IoU filter, and of those the stability filter.
PASSING_SHARE, STABLE_SHARE = 0.3, 0.5
#: Largest difference of logits from the reference's, as a fraction of the largest.
TOLERANCE = 1e-3
#: Photos are brought to the model frame's long side, so that nobody's resizing plays a part when
#: logits are compared.
_LONG_SIDE = 1024
#: Who compiles nothing.
_EAGER = ("reference", "hugging face")


def measure_peers(settings: Settings, log: Log) -> None:
    """Load all, choose thresholds by the reference, compare logits, then measure in turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amg-bench-")))
        weights = folder / f"{settings.model}.safetensors"
        write_seeded_weights(MODELS[settings.model], weights)
        task = Task(
            model=settings.model,
            points_per_side=settings.points_per_side,
            pred_iou_thresh=0.0,
            stability_score_thresh=0.0,
            threads=settings.threads,
            weights=str(weights),
        )
        prefix = f"peers|{settings.model}|{settings.points_per_side}"

        def start(name: str) -> ContenderProcess:
            return stack.enter_context(ContenderProcess(name, task))

        reference = start("reference")
        reference.ask("load")
        thresholds = log.measure(f"{prefix}|thresholds", lambda: _thresholds(reference, settings))
        chosen = {name: thresholds[name] for name in ("pred_iou_thresh", "stability_score_thresh")}
        reference.ask("set_thresholds", **chosen)
        processes = {"reference": reference}
        for name in settings.contenders:
            if name != "reference":
                processes[name] = start(name)
                processes[name].ask("load", **chosen)
        products = start("products")
        products.ask("load")
        usable = _checked(processes, products, prefix, settings, log, folder)
        _measure_stages(usable, products, prefix, settings, log)
        if settings.whole:
            _measure_whole(usable, products, prefix, settings, log)
        for name, process in usable.items():
            if name in ("ours", "ours, fast", "reference"):
                log.measure(
                    f"{prefix}|work|{name}",
                    lambda p=process: {
                        "value": p.ask("work", **_photo(settings.photos[0]))["value"]
                    },
                )


def _photo(name: str) -> dict[str, Any]:
    height, width = load_photo(name).shape[:2]
    scale = _LONG_SIDE / max(height, width)
    return {"photo": name, "size_wh": (round(width * scale), round(height * scale))}


def _thresholds(reference: ContenderProcess, settings: Settings) -> dict[str, Any]:
    photo = _photo(settings.photos[0])
    reference.ask("embed", **photo)
    scores = np.array(reference.ask("score", **photo)["value"])
    iou = float(np.quantile(scores, 1.0 - PASSING_SHARE))
    reference.ask("set_thresholds", pred_iou_thresh=iou, stability_score_thresh=0.0)
    reference.ask("measure")
    stabilities = reference.ask("stabilities")["value"]
    passing = scores > iou
    return {
        "pred_iou_thresh": iou,
        "stability_score_thresh": float(np.quantile(stabilities, 1.0 - STABLE_SHARE)),
        "passing_share": float(passing.mean()),
        "share_of_prompts_with_a_survivor": float(passing.any(axis=1).mean()),
        "prompts": len(scores),
        "size_wh": photo["size_wh"],
    }


def _checked(
    processes: dict[str, ContenderProcess],
    products: ContenderProcess,
    prefix: str,
    settings: Settings,
    log: Log,
    folder: Path,
) -> dict[str, ContenderProcess]:
    """Compare logits with the reference's; what fails or differs is not measured.

    What compiles, compiles here; of what does not, this is the first turn already.
    """
    logits: dict[str, NDArray[np.float32]] = {}
    usable = {}
    for name, process in processes.items():
        path = folder / f"{name}.npy"
        try:
            log.measure(f"{prefix}|rate|check|{name}", lambda: _rate(products))
            stages = _stages(process, settings.photos[0])
            process.ask("save_logits", path=str(path))
            if name in _EAGER:
                log.measure(f"{prefix}|stage|{name}|0", lambda s=stages: {"value": s})
        except ContenderError as error:
            print(f"left out: {error}", flush=True)
            log.measure(f"{prefix}|error|{name}", lambda e=error: {"value": str(e)})
            continue
        logits[name] = np.load(path)
        usable[name] = process
    expected = logits["reference"]
    for name, found in logits.items():
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        log.measure(f"{prefix}|logits|{name}", lambda e=error: {"value": e})
        if error > TOLERANCE and name != "ours, fast":
            raise SystemExit(f"{name} differs from the reference by {error:.1e} of the largest")
    return usable


def _measure_stages(
    processes: dict[str, ContenderProcess],
    products: ContenderProcess,
    prefix: str,
    settings: Settings,
    log: Log,
) -> None:
    photo = settings.photos[0]
    for turn in range(settings.repeats):
        for name, process in processes.items():
            log.measure(f"{prefix}|rate|{turn}|{name}", lambda: _rate(products))
            log.measure(
                f"{prefix}|stage|{name}|{turn}", lambda p=process: {"value": _stages(p, photo)}
            )


def _stages(process: ContenderProcess, name: str) -> dict[str, Any]:
    photo = _photo(name)
    return {
        "embed": process.ask("embed", **photo),
        "score": process.ask("score", **photo) | {"value": None},
        "measure": process.ask("measure"),
    }


def _measure_whole(
    processes: dict[str, ContenderProcess],
    products: ContenderProcess,
    prefix: str,
    settings: Settings,
    log: Log,
) -> None:
    for photo in settings.photos:
        for name, process in processes.items():
            key = f"{prefix}|whole|{name}|{photo}"
            if log.has(key):
                continue
            log.measure(f"{prefix}|rate|{photo}|{name}", lambda: _rate(products))
            log.measure(key, lambda p=process, f=photo: p.ask("generate", **_photo(f)))


def _rate(products: ContenderProcess) -> dict[str, Any]:
    return {"value": products.ask("rate")["value"]}
