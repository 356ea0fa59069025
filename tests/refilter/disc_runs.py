"""Runs of images whose masks follow from formulas, with the real algorithm around them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from amg_pipeline.amg.generator import AutomaticMaskGenerator
from amg_pipeline.config import RunConfig
from amg_pipeline.local_runner import run_locally
from amg_pipeline.planning import Plan
from amg_pipeline.shard_runner.mask_generator import MaskGenerator
from tests.fakes import DiscModel, Shape, coordinate_image
from tests.photo_runs import plan_photos

SIZE = (110, 150)
SHAPES = (
    Shape("disc", 50, 60, 38, 38, sharpness=0.5, drift=0.2, holes=((50, 60, 4),)),
    Shape("rectangle", 60, 70, 20, 14, sharpness=3.0, score=0.9, drift=0.6),
    Shape("disc", 120, 40, 25, 30, sharpness=1.0, drift=0.9, islands=((90, 100, 2),)),
    Shape("rectangle", 125, 90, 30, 12, score=0.8, drift=0.3),
    Shape("disc", 130, 90, 8, 8, sharpness=0.2, drift=0.4),
)
#: So low that the grid of a test lies above it; few points, so that runs take little time.
BASE = (
    "amg.points_per_side=7",
    "amg.pred_iou_thresh=0.5",
    "amg.stability_score_thresh=0.2",
    "amg.box_nms_thresh=0.6",
)


def write_images(folder: Path) -> Path:
    """Write images that the fake can tell places in; one is none."""
    folder.mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(coordinate_image(*SIZE)).save(folder / f"{name}.png")
    (folder / "bad.png").write_bytes(b"no image")
    return folder


def plan_run(images: Path, out: Path, *overrides: str) -> Plan:
    return plan_photos(images, out, *BASE, *overrides)


def run_discs(images: Path, out: Path, *overrides: str) -> Path:
    """Run with the fake in place of the model; returns the output."""
    run_locally(plan_run(images, out, *overrides), make_generator=make_disc_generator)
    return out


def make_disc_generator(config: RunConfig) -> MaskGenerator:
    """Stand in for `make_mask_generator`."""
    return AutomaticMaskGenerator.from_settings(DiscModel(SHAPES), config.amg).find
