from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from amg_pipeline.sam import SAM
from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.training import stages, tiny_recipe
from amg_pipeline.training.checkpoint import Checkpoint
from amg_pipeline.training.scene_trainer import SceneTrainer
from amg_pipeline.training.stages import Pace, Stage
from amg_pipeline.training.tiny_recipe import (
    PACE,
    STAGES,
    Extent,
    ignore_mask_prompts,
    main,
    train_tiny,
)
from tests.sam.small_sam import LOW_RES, as_arrays, make_sam, random_image
from tests.training.small_preset import SMALL

# Keras passes TensorFlow variables to np.array, and TensorFlow does not know NumPy 2's `copy` yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COARSE = Stage(
    preset=SMALL,
    epochs=1,
    cool_down_epochs=0,
    peak_learning_rate=1e-3,
    ema_momentum=0.9,
    batch_size=2,
    prompts=2,
    cells=2,
    clicks=4,
    pixels=16,
    min_area=0.0,
    photo_share=0.5,
)
FINE = replace(SMALL, patch_size=SMALL.patch_size // 2)
#: The second one has smaller patches, and whole photographs with things pasted in.
TWO_STAGES = (
    COARSE,
    replace(COARSE, preset=FINE, epochs=2, cool_down_epochs=1, whole_photos=True, pasted=1.0),
)
EXTENT = Extent(
    scenes=4,
    held_out=2,
    crops=1,
    scene_size=32,
    copies=1,
    whole_size=48,
    validation_steps=1,
    validation_prompts=2,
    calibration_steps=1,
)


class Killed(BaseException):
    """Stands for a signal: nothing in the package may catch it."""


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tracing takes far longer than the few steps."""
    compile_model = keras.Model.compile

    def compile_eagerly(self: SceneTrainer, *, optimizer: Any, jit_compile: bool) -> None:
        compile_model(self, optimizer=optimizer, run_eagerly=True, jit_compile=not jit_compile)

    monkeypatch.setattr(SceneTrainer, "compile", compile_eagerly)

    def sgd(schedule: Any, *, ema_momentum: float) -> keras.optimizers.Optimizer:
        """Muon's many small products are what costs, one by one."""
        return keras.optimizers.SGD(schedule, use_ema=True, ema_momentum=ema_momentum)

    monkeypatch.setattr(stages, "muon", sgd)


def photo_folder(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (40, 40), "teal").save(folder / "images" / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 40}],
        "annotations": [{"image_id": 1, "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]]}],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


def kill_after_epoch(monkeypatch: pytest.MonkeyPatch, *, stage: int, epoch: int) -> None:
    """Stop `fit` at the start of an epoch, when the one before has left a checkpoint."""
    begin = Checkpoint.on_epoch_begin

    def kill(self: Checkpoint, at: int, logs: Any = None) -> None:
        begin(self, at, logs)
        if at == epoch and self._path.name.startswith(f"stage{stage}"):
            raise Killed

    monkeypatch.setattr(Checkpoint, "on_epoch_begin", kill)


def train(folder: Path, photos: Path) -> Path:
    return train_tiny(
        folder,
        photos=[photos],
        held_out_photos=[photos],
        stages=TWO_STAGES,
        extent=EXTENT,
        pace=Pace(steps_per_epoch=1, warm_up_steps=1),
        processes=1,
    )


@pytest.mark.slow
# A killed `fit` leaves its log open.
@pytest.mark.training
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.usefixtures("eager")
def test_a_killed_training_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = photo_folder(tmp_path / "photos")
    whole = train(tmp_path / "whole", photos)
    # Killed in the last stage: what the others left is taken as it is.
    left = shutil.ignore_patterns("stage2*", "tiny.safetensors", "result.json")
    shutil.copytree(tmp_path / "whole", tmp_path / "killed", ignore=left)
    with monkeypatch.context() as patch:
        kill_after_epoch(patch, stage=2, epoch=1)
        with pytest.raises(Killed):
            train(tmp_path / "killed", photos)
    assert not (tmp_path / "killed" / "tiny.safetensors").exists()
    resumed = train(tmp_path / "killed", photos)
    assert resumed.read_bytes() == whole.read_bytes()

    result = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert result["logit_factor"] >= 1.0
    assert len(result["score_lines"]) == 3
    assert all(slope > 0.0 and -1.0 < offset < 1.0 for slope, offset in result["score_lines"])
    assert result["stages"] == json.loads(json.dumps([asdict(stage) for stage in TWO_STAGES]))
    assert {"loss", "best_iou", "top_iou", "score_error"} <= set(result)
    monkeypatch.setitem(PRESETS, "tiny", FINE)
    loaded = SAM.from_variant("tiny", weights=str(whole))
    assert all(np.isfinite(as_arrays(variable)).all() for variable in loaded.variables)


def test_the_command_trains_into_a_new_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "work"
    received: list[Any] = []

    def train(work_dir: Path, **arguments: Any) -> Path:
        received.append((work_dir, work_dir.is_dir(), arguments))
        path = work_dir / "tiny.safetensors"
        path.write_bytes(b"12345")
        return path

    monkeypatch.setattr(tiny_recipe, "train_tiny", train)
    command = "tiny_recipe WORK --processes 3 --photos a --photos b --held-out-photos c"
    monkeypatch.setattr("sys.argv", command.replace("WORK", str(folder)).split())
    main()
    arguments = {
        "photos": [Path("a"), Path("b")],
        "held_out_photos": [Path("c")],
        "processes": 3,
    }
    assert received == [(folder, True, arguments)]
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"weights": str(folder / "tiny.safetensors"), "bytes": 5}


def test_stages_end_after_the_warm_up() -> None:
    for stage in STAGES:
        assert 0 <= stage.cool_down_epochs < stage.epochs
        assert stage.epochs * PACE.steps_per_epoch > PACE.warm_up_steps


def test_ignored_mask_prompts_mean_no_mask() -> None:
    sam = make_sam()
    image = random_image(40, 64)
    masks = np.random.default_rng(0).normal(0, 4, (1, 1, LOW_RES, LOW_RES))
    call = {"image": image, "points": ([[[20, 20]]], [[1]])}
    before = as_arrays(sam({**call, "masks": masks}))["low_res_logits"]
    ignore_mask_prompts(sam)
    without = as_arrays(sam(call))["low_res_logits"]
    np.testing.assert_allclose(
        as_arrays(sam({**call, "masks": masks}))["low_res_logits"], without, atol=1e-5
    )
    assert np.abs(before - without).max() > 0.1
