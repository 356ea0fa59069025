"""Trains the packaged model: `python -m amg_pipeline.training.tiny_recipe WORK_DIR`.

Renders scenes, trains `tiny` on them and on photographs if folders with some are given, sharpens
its logits, calibrates its scores and writes `WORK_DIR/tiny.safetensors` and, with what was measured
on held-out scenes, `WORK_DIR/result.json`.
Killed at any moment, the same command goes on from the last finished epoch. Everything drawn
depends on `SEED` alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras

from amg_pipeline.sam.model import SAM
from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights import save_weights
from amg_pipeline.training.batches import Batch, SceneBatches, Source
from amg_pipeline.training.calibration import calibrate_logits, calibrate_scores
from amg_pipeline.training.labelled_views import LabelledViews
from amg_pipeline.training.pasting import Cutout, cut_out
from amg_pipeline.training.photo_scenes import render_photo_scenes
from amg_pipeline.training.prompted_batches import PromptedBatches
from amg_pipeline.training.scene_cache import SceneCache, render_scenes
from amg_pipeline.training.scenes import HELD_OUT_SEED
from amg_pipeline.training.sources.coco import CocoImage, read_coco
from amg_pipeline.training.sources.labelled_image import LabelledImage
from amg_pipeline.training.sources.synthetic import read_synthetic
from amg_pipeline.training.stages import Pace, Stage, start_stage, train_stage
from amg_pipeline.training.views import PHOTOGRAPHS, Augmentation

SEED = 0

_COARSE = Stage(
    preset=replace(PRESETS["tiny"], patch_size=16),
    epochs=34,
    cool_down_epochs=0,
    peak_learning_rate=1e-3,
    ema_momentum=0.998,
    batch_size=8,
    prompts=16,
    cells=0,
    clicks=64,
    pixels=768,
    min_area=0.0,
    photo_share=0.5,
)
#: Smaller patches: finer borders, and each prompt more than twice as costly.
_FINE = replace(
    _COARSE,
    preset=replace(PRESETS["tiny"], img_size=192),
    epochs=28,
    prompts=8,
    min_area=0.002,
)
_LONG = replace(_FINE, epochs=68, cool_down_epochs=52, batch_size=6, cells=192, photo_share=0.65)
_WHOLE = replace(
    _LONG,
    epochs=30,
    cool_down_epochs=0,
    min_area=0.0025,
    photo_share=0.8,
    whole_photos=True,
    revived=(2, 3),
)
STAGES = (
    _COARSE,
    # The low-res grid has 64 x 64 cells: what is smaller than a dozen of them teaches noise.
    replace(_COARSE, epochs=22, min_area=0.004),
    _FINE,
    # By far the longest, and mostly on photographs: what scenes lack is what is left to learn.
    _LONG,
    # The same again, from the average of its weights: the loss still fell.
    replace(_LONG, epochs=70, cool_down_epochs=55),
    # One output of three had come to answer with nearly the whole image.
    _WHOLE,
    # At the size that ships.
    replace(
        _WHOLE, preset=PRESETS["tiny"], epochs=15, cool_down_epochs=13, cells=256, revived=None
    ),
)
#: Of whole photographs little is cut off, so that things are as large as in use.
_MOST = Augmentation(turned=0.1, cropped=0.85, least_crop=0.5, oblong=0.25, least_zoom=0.9)
#: Scenes, which have fewer pixels, are little enlarged.
_LARGE_PARTS = Augmentation(least_crop=0.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is rendered, and how much is measured.

    Attributes:
        scenes: Synthetic scenes to train on.
        held_out: Synthetic scenes to measure on.
        crops: Crops of each photograph.
        scene_size: Side of scenes and crops in pixels.
        copies: Scenes of each whole photograph.
        whole_size: Longer side of these in pixels.
        validation_steps: Batches that are measured after each epoch.
        validation_prompts: Prompts of a measured view.
        calibration_steps: Batches that logits are sharpened on at the end.
    """

    scenes: int = 6000
    held_out: int = 256
    crops: int = 8
    scene_size: int = 256
    copies: int = 4
    whole_size: int = 416
    validation_steps: int = 6
    validation_prompts: int = 8
    calibration_steps: int = 24


EXTENT = Extent()
PACE = Pace()
#: Clicks of a held-out image that scores are calibrated with, and the least share of its view,
#: padding included, that a mask has which is clicked in.
_CLICKS = 16
_MIN_CLICKED_AREA = 0.005


def train_tiny(
    work_dir: Path,
    *,
    photos: Sequence[Path] = (),
    held_out_photos: Sequence[Path] = (),
    stages: Sequence[Stage] = STAGES,
    extent: Extent = EXTENT,
    pace: Pace = PACE,
    processes: int = 2,
) -> Path:
    """Train the packaged model, or go on with a training that was stopped.

    Args:
        work_dir: Holds the rendered scenes, the checkpoints, the logs and the result.
        photos: Folders of photographs in COCO's format to train on. Whole ones are drawn from
            each folder equally often, crops from each photograph.
        held_out_photos: Folders of others to measure on.
        stages: What to do one after the other; must stay the same when resuming.
        extent: How much is rendered and measured.
        pace: Steps of epochs and warm-up.
        processes: Worker processes that render scenes.

    Returns:
        The path of the weights, half precision safetensors with the reference's names.
    """
    keras.utils.set_random_seed(SEED)
    render = _Renderer(work_dir, extent, processes)
    scenes = render.scenes("scenes", extent.scenes, SEED)
    crops = render.crops("photos", photos, SEED)
    wholes = render.wholes(photos, SEED) if any(stage.whole_photos for stage in stages) else []
    held_out = [Source(render.scenes("held_out", extent.held_out, HELD_OUT_SEED))]
    held_out += [Source(c) for c in render.crops("held_out_photos", held_out_photos, HELD_OUT_SEED)]
    last = None
    for number, stage in enumerate(stages, start=1):
        trainer = start_stage(stage, last, seed=SEED)
        validation = _validation(held_out, stage, extent)
        train_stage(
            trainer,
            stage,
            _sources(stage, scenes, crops, wholes),
            validation,
            name=f"stage{number}",
            seed=SEED + number - 1,  # each stage draws its own batches
            work_dir=work_dir,
            pace=pace,
        )
        last = stage, trainer
    metrics = trainer.evaluate(validation, return_dict=True, verbose=0)
    # Photographs if there are any: what the model is for.
    calibration = _validation(
        held_out[-1:], stage, replace(extent, validation_steps=extent.calibration_steps)
    )
    marked: Sequence[LabelledImage] = _read_photos(held_out_photos) or read_synthetic(
        extent.held_out, size=extent.scene_size, seed=HELD_OUT_SEED
    )
    clicks = _clicks(trainer.sam, marked)
    found = {
        **{name: float(value) for name, value in metrics.items()},
        "logit_factor": calibrate_logits(trainer, _all(calibration)),
        "score_lines": calibrate_scores(trainer.sam, _all(clicks)),
    }
    return _save(trainer.sam, found, stages, work_dir)


@dataclass(frozen=True, slots=True)
class _Renderer:
    work_dir: Path
    extent: Extent
    processes: int

    def scenes(self, name: str, count: int, seed: int) -> SceneCache:
        return render_scenes(
            self.work_dir / name,
            count=count,
            size=self.extent.scene_size,
            seed=seed,
            processes=self.processes,
        )

    def crops(self, name: str, folders: Sequence[Path], seed: int) -> list[SceneCache]:
        """Render crops of all folders' photographs as one cache; none if there are no folders."""
        if not folders:
            return []
        return [
            render_photo_scenes(
                self.work_dir / name,
                _read_photos(folders),
                copies=self.extent.crops,
                seed=seed,
                size=self.extent.scene_size,
                processes=self.processes,
            )
        ]

    def wholes(self, folders: Sequence[Path], seed: int) -> list[SceneCache]:
        """Render the whole photographs of each folder as a cache."""
        return [
            render_photo_scenes(
                self.work_dir / f"whole_photos{number}",
                _read_photos([folder]),
                copies=self.extent.copies,
                seed=seed,
                size=self.extent.whole_size,
                whole=True,
                processes=self.processes,
            )
            for number, folder in enumerate(folders, start=1)
        ]


def _sources(
    stage: Stage, scenes: SceneCache, crops: Sequence[SceneCache], wholes: Sequence[SceneCache]
) -> list[Source]:
    """Share a stage's views out among scenes and photographs, if there are any."""
    photos, of_photos, of_scenes = crops, PHOTOGRAPHS, PHOTOGRAPHS
    if stage.whole_photos:
        photos, of_photos, of_scenes = wholes, _MOST, _LARGE_PARTS
    if not photos:
        return [Source(scenes, augmentation=of_scenes)]
    cutouts = _cutouts(photos) if stage.pasted else []
    share = stage.photo_share / len(photos)
    return [Source(scenes, 1.0 - stage.photo_share, of_scenes)] + [
        Source(cache, share, of_photos, cutouts, stage.pasted) for cache in photos
    ]


def _cutouts(photos: Sequence[SceneCache]) -> list[Cutout]:
    """Cut out what people marked in whole photographs."""
    scenes = (cache.scene(i) for cache in photos for i in range(cache.meta.count))
    return [cutout for scene in scenes for cutout in cut_out(scene)]


def _validation(held_out: Sequence[Source], stage: Stage, extent: Extent) -> SceneBatches:
    views = replace(
        stage.views(), batch_size=8, augment=False, prompts=extent.validation_prompts, cells=0
    )
    return SceneBatches(held_out, views, steps=extent.validation_steps, seed=HELD_OUT_SEED)


def _read_photos(folders: Sequence[Path]) -> list[CocoImage]:
    return [photo for folder in folders for photo in read_coco(folder)]


def _clicks(sam: SAM, images: Sequence[LabelledImage]) -> PromptedBatches:
    """Click in the masks that images have themselves; small ones say little of a whole image."""
    return PromptedBatches(
        LabelledViews(images, sam, augmentation=None),
        batch_size=4,
        prompts=_CLICKS,
        box_share=0.0,
        min_area=_MIN_CLICKED_AREA,
        rounds=1,
        seed=SEED,
    )


def _all(batches: SceneBatches | PromptedBatches) -> list[Batch]:
    return [batches[i] for i in range(len(batches))]


def _save(sam: SAM, found: dict[str, Any], stages: Sequence[Stage], work_dir: Path) -> Path:
    ignore_mask_prompts(sam)
    weights = work_dir / "tiny.safetensors"
    save_weights(sam, weights, dtype="float16")
    result = {
        "seed": SEED,
        "stages": [asdict(stage) for stage in stages],
        **found,
    }
    (work_dir / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    return weights


def ignore_mask_prompts(sam: SAM) -> None:
    """Make any mask prompt mean the same as none.

    This recipe shows the model no mask prompts. Untrained, their embedding would drown the image's;
    so its last layer gives what stands for "no mask".
    """
    last = sam.prompt_encoder.mask_downscaling[-1]
    last.kernel.assign(keras.ops.zeros_like(last.kernel))
    last.bias.assign(sam.prompt_encoder.no_mask_embed[0])


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--photos", type=Path, action="append", default=[], metavar="FOLDER")
    parser.add_argument(
        "--held-out-photos", type=Path, action="append", default=[], metavar="FOLDER"
    )
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    path = train_tiny(
        arguments.work_dir,
        photos=arguments.photos,
        held_out_photos=arguments.held_out_photos,
        processes=arguments.processes,
    )
    print(json.dumps({"weights": str(path), "bytes": path.stat().st_size}))


if __name__ == "__main__":
    main()
