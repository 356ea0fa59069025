"""Refiltered runs are, byte for byte, what fresh runs give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amg_pipeline.errors import ConfigError, FingerprintMismatchError
from amg_pipeline.planning import Plan
from amg_pipeline.refilter.new_run import plan_refilter, run_refilter
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.work import find_work
from tests.photo_runs import stored_masks
from tests.refilter.disc_runs import plan_run, run_discs, write_images

CROPS = ("amg.crop_n_layers=1", "amg.crop_nms_thresh=0.4")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("discs") / "in")


@pytest.fixture(scope="module")
def run(images: Path) -> Path:
    return run_discs(images, images.parent / "run")


@pytest.fixture(scope="module")
def candidates(images: Path) -> Path:
    return run_discs(images, images.parent / "candidates", "amg.keep_candidates=true")


@pytest.fixture(scope="module")
def crop_candidates(images: Path) -> Path:
    return run_discs(images, images.parent / "crops", "amg.keep_candidates=true", *CROPS)


def assert_equals_fresh_run(source: Path, images: Path, tmp_path: Path, *changes: str) -> int:
    """Compare all of `masks/`, and the plan but for its address; returns the number of masks."""
    work = plan_refilter(str(source), str(tmp_path / "new"), overrides=changes)
    run_refilter(work)
    base = CROPS if source.name == "crops" else ()
    fresh = run_discs(images, tmp_path / "fresh", *base, *changes)
    plans = [json.loads((out / "_amg/plan.json").read_text()) for out in (tmp_path / "new", fresh)]
    for plan in plans:
        plan["config"]["output"].pop("uri")

    assert plans[0] == plans[1]
    assert stored_masks(tmp_path / "new") == stored_masks(fresh) != {}
    return sum(load_masks(str(fresh)).to_table()["num_masks"].to_pylist())


@pytest.mark.parametrize("iou", [0.5, 0.8, 0.88, 0.9])
@pytest.mark.parametrize(
    "areas", [(), ("amg.min_area=300",), ("amg.max_area=3000", "amg.max_area_fraction=0.12")]
)
def test_finished_masks_refilter_exactly(
    run: Path, images: Path, tmp_path: Path, iou: float, areas: tuple[str, ...]
) -> None:
    changes = (f"amg.pred_iou_thresh={iou}", *areas)

    assert assert_equals_fresh_run(run, images, tmp_path, *changes) > 0


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param((), id="nothing"),
        pytest.param(("amg.stability_score_thresh=0.8",), id="stability"),
        pytest.param(("amg.box_nms_thresh=0.3",), id="nms"),
        pytest.param(("amg.box_nms_thresh=0.9",), id="looser-nms"),
        pytest.param(("amg.nms_kind=mask", "amg.box_nms_thresh=0.5"), id="mask-nms"),
        pytest.param(("amg.min_mask_region_area=60",), id="regions"),
        pytest.param(
            (
                "amg.pred_iou_thresh=0.85",
                "amg.stability_score_thresh=0.6",
                "amg.box_nms_thresh=0.8",
                "amg.min_mask_region_area=20",
                "amg.min_area=100",
            ),
            id="all",
        ),
        pytest.param(
            ("amg.keep_candidates=true", "amg.stability_score_thresh=0.7"), id="candidates-again"
        ),
    ],
)
@pytest.mark.parametrize("source", ["candidates", "crop_candidates"])
def test_candidates_refilter_exactly(
    request: pytest.FixtureRequest,
    images: Path,
    tmp_path: Path,
    source: str,
    changes: tuple[str, ...],
) -> None:
    output = request.getfixturevalue(source)

    assert assert_equals_fresh_run(output, images, tmp_path, *changes) > 0


def test_settings_make_a_difference(images: Path, candidates: Path, run: Path) -> None:
    counts = [
        sum(load_masks(str(out)).to_table()["num_masks"].to_pylist()) for out in (candidates, run)
    ]

    assert counts[0] > 2 * counts[1] > 0


def test_fresh_run_takes_the_new_output_up(run: Path, images: Path, tmp_path: Path) -> None:
    change = "amg.pred_iou_thresh=0.9"
    run_refilter(plan_refilter(str(run), str(tmp_path / "new"), overrides=[change]))

    plan = plan_run(images, tmp_path / "new", change)

    assert plan.is_resumed
    assert find_work(plan).num_shards == 0
    assert list(plan.run_directory.verify(plan.stored)) == []


def test_unfinished_run_is_refiltered_as_far_as_it_is(
    images: Path, run: Path, tmp_path: Path
) -> None:
    partial = tmp_path / "partial"
    source, target = ObjectStore.open(str(run)), ObjectStore.open(str(partial))
    for info in source.list():
        if "part-000001" not in info.key:
            target.put(info.key, source.read(info.key))
    change = "amg.pred_iou_thresh=0.9"

    done = run_refilter(plan_refilter(str(partial), str(tmp_path / "new"), overrides=[change]))
    run_discs(images, tmp_path / "new", change)

    assert done == {0}
    assert len(stored_masks(tmp_path / "new")) == 2


def test_same_command_resumes_and_leaves_what_is_there(run: Path, tmp_path: Path) -> None:
    def refilter() -> list[int]:
        shards: list[int] = []
        work = plan_refilter(str(run), str(tmp_path / "new"), overrides=["amg.min_area=9"])
        run_refilter(work, on_shard=lambda images, masks: shards.append(images))
        return shards

    assert refilter() == [2, 1]
    assert refilter() == []
    max((tmp_path / "new/masks").iterdir()).unlink()
    assert refilter() == [1]


def test_output_of_other_settings_is_refused(run: Path, tmp_path: Path) -> None:
    plan_refilter(str(run), str(tmp_path / "new"), overrides=["amg.min_area=9"])

    with pytest.raises(FingerprintMismatchError, match="NEW must be empty"):
        plan_refilter(str(run), str(tmp_path / "new"), overrides=["amg.min_area=10"])


def test_folder_of_somebody_else_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")

    with pytest.raises(ConfigError, match="must be empty"):
        plan_refilter(str(run), str(tmp_path), overrides=["amg.min_area=9"])
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_failed_images_keep_their_rows(run: Path, tmp_path: Path) -> None:
    run_refilter(plan_refilter(str(run), str(tmp_path), overrides=["amg.pred_iou_thresh=0.99"]))
    before, after = (load_masks(str(out)).to_table() for out in (run, tmp_path))
    columns = ["image_id", "status", "error_type", "error_message", "width", "height"]

    assert after.select(columns) == before.select(columns)
    assert set(after["num_masks"].to_pylist()) == {0}


def test_part_of_the_plan_that_is_missing_is_named(run: Path, tmp_path: Path) -> None:
    from amg_pipeline.errors import StorageError

    source = tmp_path / "damaged"
    (source / "_amg").mkdir(parents=True)
    (source / "_amg/plan.json").write_bytes((run / "_amg/plan.json").read_bytes())

    with pytest.raises(StorageError, match="plan's part"):
        plan_refilter(str(source), str(tmp_path / "new"), overrides=["amg.min_area=9"])
    assert RunDirectory.open(str(tmp_path / "new")).read_plan() is None


def test_plan_of_cleaned_masks_is_no_fresh_runs(run: Path, images: Path, tmp_path: Path) -> None:
    from amg_pipeline.refilter.cleaning import CleaningSettings

    cleaning = CleaningSettings(disjoint=True, max_iou=0.8)
    work = plan_refilter(str(run), str(tmp_path / "new"), cleaning=cleaning)
    run_refilter(work)
    plan: Plan = work.plan

    assert plan.stored.fingerprint_fields["refilter.disjoint"] is True
    assert list(plan.run_directory.verify(plan.stored)) == []
    with pytest.raises(FingerprintMismatchError, match=r"refilter\.disjoint"):
        plan_run(images, tmp_path / "new")
