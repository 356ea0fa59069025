"""The parts of `make bench` that need no peer: `tiny`, the curves, and memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.bench_log import Log
from benchmarks.contenders.process import ContenderError, ContenderProcess
from benchmarks.contenders.protocol import Task
from benchmarks.photos import load_photo
from benchmarks.seeded_weights import MODELS, write_seeded_weights

#: Photos that fast and strict are compared on.
COMPARED_PHOTOS = 30
MATCHING_IOU = 0.9
#: The usual photo of this comparison, and one of 24 megapixels.
PHOTO_WH = (481, 321)
LARGE_WH = (6000, 4000)
_POINTS = (8, 16, 32, 64)
_SIZES = ((481, 321), (1024, 683), (2048, 1365), (4096, 2731), LARGE_WH)
_LAYERS = (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the command line asks for.

    Attributes:
        model: Sizes of the seeded weights of `peers` and `memory`.
        contenders: Names of who takes part in `peers`.
        photos: Names or paths; stages are measured on the first.
        points_per_side: Density of the grid.
        repeats: Of every stage.
        whole: Whether whole photos are measured.
        threads: Of every process.
        photo_folder: Photos for `tiny`; None for the packaged ones and views of them.
    """

    model: str
    contenders: tuple[str, ...]
    photos: tuple[str, ...]
    points_per_side: int
    repeats: int
    whole: bool
    threads: int
    photo_folder: Path | None


def measure_tiny(settings: Settings, log: Log) -> None:
    """Compare fast with strict on 30 photos; time photos, and a process until its first masks."""
    with tempfile.TemporaryDirectory(prefix="amg-bench-") as temporary:
        photos = _thirty_photos(settings.photo_folder, Path(temporary))
        task = Task(model="tiny", points_per_side=32, threads=settings.threads)
        masks: dict[str, list[list[dict[str, Any]]]] = {}
        for name in ("ours", "ours, fast"):
            try:
                masks[name] = _masks_of(name, task, photos, log)
            except ContenderError as error:
                print(f"left out: {error}", flush=True)
                log.measure(f"tiny|error|{name}", lambda e=error: {"value": str(e)})
        if len(masks) == 2:
            log.measure("tiny|agreement", lambda: {"value": agreement(*masks.values())})
        log.measure("tiny|photos", lambda: {"value": _described(settings.photo_folder)})
        for turn in range(settings.repeats):
            log.measure(f"tiny|first masks|{turn}", lambda: _first_masks(photos[0], temporary))


def _masks_of(
    name: str, task: Task, photos: Sequence[Path], log: Log
) -> list[list[dict[str, Any]]]:
    with ContenderProcess(name, task) as process:
        process.ask("load")
        process.ask("masks", photo=str(photos[0]))  # compiles
        found = []
        for path in photos:
            reply = process.ask("masks", photo=str(path))
            found.append(reply.pop("value"))
            log.measure(
                f"tiny|seconds|{name}|{path.stem}",
                lambda r=reply, m=found[-1]: {**r, "value": len(m)},
            )
        return found


def _thirty_photos(folder: Path | None, into: Path) -> list[Path]:
    """Give 30 photos; of the packaged ones, whole, mirrored, and in part."""
    if folder is not None:
        return sorted(folder.glob("*.jpg"))[:COMPARED_PHOTOS]
    from amg_pipeline.assets import PHOTOS_FOLDER

    views = {"whole": (0, 0, 1, 1), "left": (0, 0, 0.6, 1), "low": (0, 0.4, 1, 1)}
    paths = []
    for name, (left, top, right, bottom) in [*views.items(), ("mirrored", views["whole"])]:
        for source in sorted(PHOTOS_FOLDER.glob("*.jpg")):
            photo = load_photo(source.stem)
            height, width = photo.shape[:2]
            part = photo[
                int(top * height) : int(bottom * height), int(left * width) : int(right * width)
            ]
            paths.append(into / f"{source.stem}-{name}.png")
            Image.fromarray(part[:, ::-1] if name == "mirrored" else part).save(paths[-1])
    return paths[:COMPARED_PHOTOS]


def _described(folder: Path | None) -> str:
    return "the packaged photos and views of them" if folder is None else folder.resolve().name


def agreement(
    strict: Sequence[list[dict[str, Any]]], fast: Sequence[list[dict[str, Any]]]
) -> dict[str, float]:
    """Measure how far fast masks are from strict ones, image by image.

    Args:
        strict: For each image, its masks as COCO run-length encodings.
        fast: The same.

    Returns:
        `median_count_difference`, relative to the strict count; `matched_share` of strict masks
        that have a fast one of their own at IoU 0.9 or more; `equal_count_share` of the images;
        `median_matched_iou`.
    """
    from pycocotools import mask as coco
    from scipy.optimize import linear_sum_assignment

    differences, ious, total = [], [], 0
    for wanted, found in zip(strict, fast, strict=True):
        differences.append(abs(len(found) - len(wanted)) / max(1, len(wanted)))
        total += len(wanted)
        if wanted and found:
            pairs = np.asarray(coco.iou(found, wanted, [0] * len(wanted)))
            ious.append(pairs[linear_sum_assignment(pairs, maximize=True)])
    matched = np.concatenate(ious) if ious else np.zeros(0)
    matched = matched[matched >= MATCHING_IOU]
    return {
        "images": len(differences),
        "strict_masks": total,
        "median_count_difference": float(np.median(differences)),
        "matched_share": len(matched) / max(1, total),
        "equal_count_share": float(np.mean([d == 0 for d in differences])),
        "median_matched_iou": float(np.median(matched)) if len(matched) else 0.0,
    }


def _first_masks(photo: Path, folder: str) -> dict[str, Any]:
    """Time a process from its start to the masks of one photo, and the whole command line."""
    script = (
        "import sys, time\n"
        "import numpy as np\n"
        "from PIL import Image\n"
        "from amg_pipeline import SAM, AutomaticMaskGenerator\n"
        "photo = np.asarray(Image.open(sys.argv[1]).convert('RGB'))\n"
        "AutomaticMaskGenerator(SAM.from_variant('tiny')).generate(photo)\n"
        "print(time.time())\n"
    )
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-c", script, str(photo)], check=True, capture_output=True, text=True
    )
    seconds = float(done.stdout.split()[-1]) - started
    source = Path(folder) / "one"
    source.mkdir(exist_ok=True)
    (source / photo.name).write_bytes(photo.read_bytes())
    out = Path(folder) / f"out-{time.time_ns()}"
    started = time.time()
    command = [sys.executable, "-m", "amg_pipeline.cli", "run", str(source), str(out), "--local"]
    subprocess.run(command, check=True, capture_output=True)
    return {"seconds": seconds, "command_seconds": time.time() - started}


def measure_curves(settings: Settings, log: Log) -> None:
    """Measure what one photo costs by points, image size and crop layers, with `tiny`."""
    points = [(n, PHOTO_WH, 0) for n in _POINTS]
    sizes = [(32, size, 0) for size in _SIZES]
    crops = [(32, (1024, 683), layers) for layers in _LAYERS]
    for curve, cases in {"points": points, "size": sizes, "crops": crops}.items():
        for side, size, layers in cases:
            key = f"curves|{curve}|{side}|{size[0]}x{size[1]}|{layers}"
            if not log.has(key):
                task = Task(
                    model="tiny",
                    points_per_side=side,
                    crop_n_layers=layers,
                    threads=settings.threads,
                )
                log.measure(key, lambda t=task, s=size: _second_time(t, s))


def _second_time(task: Task, size_wh: tuple[int, int]) -> dict[str, Any]:
    with ContenderProcess("ours", task) as process:
        process.ask("load")
        process.ask("generate", photo="flower", size_wh=size_wh)  # compiles
        return process.ask("generate", photo="flower", size_wh=size_wh)


def measure_memory(settings: Settings, log: Log) -> None:
    """Measure the peak memory of a process that finds the masks of a photo of 24 megapixels."""
    thresholds = log.entries.get(f"peers|{settings.model}|{settings.points_per_side}|thresholds")
    with tempfile.TemporaryDirectory(prefix="amg-bench-") as temporary:
        weights = Path(temporary) / f"{settings.model}.safetensors"
        write_seeded_weights(MODELS[settings.model], weights)
        seeded = Task(
            model=settings.model,
            points_per_side=settings.points_per_side,
            threads=settings.threads,
            weights=str(weights),
            **(
                {name: thresholds[name] for name in ("pred_iou_thresh", "stability_score_thresh")}
                if thresholds
                else {}
            ),
        )
        packaged = Task(model="tiny", points_per_side=32, threads=settings.threads)
        for task in (packaged, seeded):
            name = task.model if task.weights is None else f"{task.model}, seeded"
            log.measure(f"memory|{name}", lambda t=task: _once(t, LARGE_WH))


def _once(task: Task, size_wh: tuple[int, int]) -> dict[str, Any]:
    with ContenderProcess("ours", task) as process:
        process.ask("load")
        return process.ask("generate", photo="flower", size_wh=size_wh)
