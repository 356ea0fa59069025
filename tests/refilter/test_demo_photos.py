"""Refiltering runs of sample photos with the packaged model, compared with fresh runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest

from amg_pipeline import load_masks
from amg_pipeline.amg.generator import AutomaticMaskGenerator
from amg_pipeline.assets import PHOTOS_FOLDER
from amg_pipeline.config import RunConfig
from amg_pipeline.local_runner import run_locally
from amg_pipeline.refilter.new_run import plan_refilter, run_refilter
from amg_pipeline.shard_runner.mask_generator import MaskGenerator
from tests.photo_runs import plan_photos, stored_masks

#: Few prompts: what counts here is that the numbers are a model's own.
QUICK = ("amg.points_per_side=5", "images.include=[cat.jpg, coins.jpg]")

pytestmark = [
    pytest.mark.slow,
    # TensorFlow and Keras, with NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run two photos with other settings; the model is loaded once."""
    from amg_pipeline.sam.model import SAM

    segmenter = SAM.from_variant("tiny").segmenter(points_per_batch=64)

    def make(config: RunConfig) -> MaskGenerator:
        return AutomaticMaskGenerator.from_settings(segmenter, config.amg).find

    def run_photos(*overrides: str) -> Path:
        out = tmp_path_factory.mktemp("photos") / "run"
        run_locally(plan_photos(PHOTOS_FOLDER, out, *QUICK, *overrides), make_generator=make)
        return out

    return run_photos


@pytest.fixture(scope="module")
def finished(run: Run) -> Path:
    return run()


@pytest.fixture(scope="module")
def candidates(run: Run) -> Path:
    return run("amg.keep_candidates=true", "amg.stability_score_thresh=0.5")


def count_masks(out: Path) -> int:
    return int(pc.sum(load_masks(str(out)).to_table(columns=["num_masks"])["num_masks"]).as_py())


@pytest.mark.parametrize("iou", [0.42, 0.5, 0.6])
def test_tighter_predicted_iou_is_a_fresh_run(
    run: Run, finished: Path, tmp_path: Path, iou: float
) -> None:
    changes = (f"amg.pred_iou_thresh={iou}", "amg.max_area_fraction=0.9")
    run_refilter(plan_refilter(str(finished), str(tmp_path), overrides=changes))

    assert stored_masks(tmp_path) == stored_masks(run(*changes))
    assert 0 < count_masks(tmp_path) < count_masks(finished)


@pytest.mark.parametrize("stability", [0.6, 0.8])
@pytest.mark.parametrize("nms", [0.4, 0.8])
def test_candidates_give_what_fresh_runs_do(
    run: Run, candidates: Path, tmp_path: Path, stability: float, nms: float
) -> None:
    changes = (f"amg.stability_score_thresh={stability}", f"amg.box_nms_thresh={nms}")
    run_refilter(plan_refilter(str(candidates), str(tmp_path), overrides=changes))

    assert stored_masks(tmp_path) == stored_masks(run(*changes)) != {}
