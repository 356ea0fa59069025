from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amg_pipeline import planning
from amg_pipeline.assets import packaged_weights
from amg_pipeline.config import ModelSettings, RunConfig, StorageSettings, load_config
from amg_pipeline.errors import (
    ConfigError,
    FingerprintMismatchError,
    StorageError,
    WeightsError,
)
from amg_pipeline.planning import Plan, make_plan
from amg_pipeline.records import ImageResult
from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights.architecture import expected_shapes, of_preset
from amg_pipeline.sam.weights.safetensors_file import write_safetensors
from amg_pipeline.sam.weights.tensors import SourceTensor
from amg_pipeline.storage.layout import PLAN_KEY
from amg_pipeline.storage.manifest import list_images
from amg_pipeline.storage.mask_table import encode_table, load_masks
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from tests.storage.doubles import Killed, MortalFiles


def digest(variant: str, weights: str | None) -> str:
    return f"{variant}-{weights}".encode().hex().ljust(64, "0")


def accept(model: ModelSettings) -> None:
    """Stand in for the check of a model that need not exist."""


def refuse(model: ModelSettings) -> None:
    raise WeightsError("they do not fit")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(b"x" * number)
    return folder


def config_for(photos: object, out: object, *overrides: str) -> RunConfig:
    return load_config(
        overrides=["output.shard_size=4", *overrides],
        settings={"images": {"input": str(photos)}, "output": {"uri": str(out)}},
    )


def plan_run(photos: object, out: object, *overrides: str, **options: Any) -> Plan:
    settings = {"weights_digest": digest, "check_model": accept, "cpu_count": 2, **options}
    return make_plan(config_for(photos, out, *overrides), package_version="0.1.0", **settings)


def finish(plan: Plan) -> None:
    """Do what is not committed, as a runner does."""
    directory = plan.run_directory
    for shard in directory.shards(plan.stored, skip=directory.committed(plan.stored)):
        results = [ImageResult(ref, "ok", 4, 3) for ref in shard.images]
        data = encode_table(results, plan.table_metadata)
        directory.commit_shard(plan.stored, shard.shard_id, data)
    directory.write_summary({"images": plan.num_images}, is_complete=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Everything below a folder but unfinished writes, which nothing refers to."""
    store = ObjectStore.open(str(folder))
    return {info.key: store.read(info.key) for info in store.list()}


def test_new_plan(photos: Path, tmp_path: Path) -> None:
    plan = plan_run(photos, tmp_path / "out")
    assert not plan.is_resumed
    assert (plan.num_images, plan.num_bytes, plan.num_shards) == (10, 45, 3)
    stored = json.loads((tmp_path / "out" / PLAN_KEY).read_bytes())
    assert stored["fingerprint"] == plan.fingerprint
    assert stored["config"]["model"]["intra_op_threads"] == 2
    assert stored["config"]["images"]["input"] == str(photos)
    assert stored["fingerprint_fields"]["weights_sha256"] == digest("tiny", None)
    assert "output.uri" not in stored["fingerprint_fields"]


def test_footer_of_shards(photos: Path, tmp_path: Path) -> None:
    metadata = plan_run(photos, tmp_path / "out").table_metadata
    assert metadata.model == {
        "variant": "tiny",
        "weights_sha256": digest("tiny", None),
        "precision": "strict",
        "backend": "tensorflow",
    }
    assert metadata.amg["pred_iou_thresh"] == load_config().amg.pred_iou_thresh
    assert metadata.package_version == "0.1.0"


def test_same_settings_resume_without_listing_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = plan_run(photos, tmp_path / "out")
    (photos / "new.jpg").touch()
    (photos / "0.jpg").unlink()
    monkeypatch.setattr(planning, "list_images", None)
    again = plan_run(photos, tmp_path / "out", "workers.workers=7")
    assert again.is_resumed
    assert again.stored == first.stored
    assert again.config.workers.workers == 7


def test_an_unset_number_of_threads_is_that_of_the_plan(photos: Path, tmp_path: Path) -> None:
    first = plan_run(photos, tmp_path / "out", cpu_count=16)
    again = plan_run(photos, tmp_path / "out", cpu_count=2)
    assert again.fingerprint == first.fingerprint
    assert again.config.model.intra_op_threads == 16
    with pytest.raises(FingerprintMismatchError, match="intra_op_threads was 16, asked for 2"):
        plan_run(photos, tmp_path / "out", "model.intra_op_threads=2")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["amg.box_nms_thresh=0.9"], "amg.box_nms_thresh was 0.7, asked for 0.9"),
        (["output.shard_size=5"], "output.shard_size was 4, asked for 5"),
        (["images.exclude=[a]"], r"images.exclude was \[\], asked for \['a'\]"),
        (["model.weights=/w.pth"], "weights_sha256"),
        (["images.limit=3", "amg.min_area=2"], "amg.min_area.*; images.limit was None"),
    ],
)
def test_other_settings_are_refused_and_nothing_is_touched(
    photos: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    out = tmp_path / "out"
    finish(plan_run(photos, out))
    before = contents(out)
    for dry_run in (False, True):
        with pytest.raises(FingerprintMismatchError, match=message):
            plan_run(photos, out, *overrides, dry_run=dry_run)
    assert contents(out) == before


def test_other_minor_version_is_refused(photos: Path, tmp_path: Path) -> None:
    plan_run(photos, tmp_path / "out")
    config = config_for(photos, tmp_path / "out")
    options: dict[str, Any] = {
        "weights_digest": digest,
        "check_model": accept,
        "cpu_count": 2,
    }
    assert make_plan(config, package_version="0.1.9", **options).is_resumed
    with pytest.raises(FingerprintMismatchError, match=r"package was '0\.1', asked for '0\.2'"):
        make_plan(config, package_version="0.2.0", **options)


def test_other_input_of_the_same_relative_name_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    plan_run("in", out)
    other = tmp_path / "other"
    (other / "in").mkdir(parents=True)
    monkeypatch.chdir(other)
    with pytest.raises(FingerprintMismatchError, match=r"images\.input"):
        plan_run("in", out)


def test_force_moves_the_old_generation_aside(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    old = plan_run(photos, out)
    finish(old)
    before = contents(out)
    new = plan_run(photos, out, "amg.pred_iou_thresh=0.9", force=True)
    assert not new.is_resumed
    folder = out / "_old" / old.fingerprint[:8]
    assert contents(folder) == before
    assert new.run_directory.committed(new.stored) == frozenset()
    finish(new)
    assert load_masks(str(out)).count_rows() == 10
    assert plan_run(photos, out, "amg.pred_iou_thresh=0.9").is_resumed


@pytest.mark.parametrize("cpu_count", [2, 16])
def test_force_with_the_same_settings_keeps_what_is_done(
    photos: Path, tmp_path: Path, cpu_count: int
) -> None:
    out = tmp_path / "out"
    first = plan_run(photos, out)
    finish(first)
    before = contents(out)
    again = plan_run(photos, out, force=True, cpu_count=cpu_count)
    assert again.is_resumed
    assert again.stored == first.stored
    assert contents(out) == before


@pytest.mark.parametrize("damage", ["moved", "cut short"])
def test_force_with_the_same_settings_replaces_a_plan_without_its_rows(
    photos: Path, tmp_path: Path, damage: str
) -> None:
    """A move to `_old/` that was killed takes the rows before the plan."""
    out = tmp_path / "out"
    plan = plan_run(photos, out)
    part = out / plan.stored.parts[0].key
    part.rename(out / "elsewhere") if damage == "moved" else part.write_bytes(b"PAR1")
    with pytest.raises(StorageError, match="--force"):
        finish(plan_run(photos, out))
    again = plan_run(photos, out, force=True)
    assert not again.is_resumed
    finish(again)
    assert load_masks(str(out)).count_rows() == 10


def test_force_with_other_settings_takes_this_machines_threads(
    photos: Path, tmp_path: Path
) -> None:
    plan_run(photos, tmp_path / "out")
    new = plan_run(photos, tmp_path / "out", "amg.min_area=1", force=True, cpu_count=16)
    assert new.config.model.intra_op_threads == 16


def test_killed_force_goes_on_beside_what_is_no_part_of_the_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_between_plans = False
    for kill_at in range(60):
        out = tmp_path / f"out-{kill_at}"
        finish(plan_run(photos, out))
        (out / "report").mkdir()
        (out / "report" / "index.html").write_text("a page")
        done = run_with_deaths(
            monkeypatch, photos, out, "amg.min_area=1", kill_at=kill_at, force=True
        )
        was_between_plans |= not (out / PLAN_KEY).exists()
        finish(plan_run(photos, out, "amg.min_area=1", force=True))
        assert load_masks(str(out)).count_rows() == 10
        assert (out / "report" / "index.html").read_text() == "a page"
        assert [path.name for path in (out / "_old").iterdir()] == [
            plan_run(photos, tmp_path / "other", dry_run=True).fingerprint[:8]
        ]
        if done:
            break
    assert kill_at > 20
    assert was_between_plans


def test_force_with_unusable_input_touches_nothing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(plan_run(photos, out))
    before = contents(out)
    with pytest.raises(ConfigError, match="exists"):
        plan_run(tmp_path / "absent", out, force=True)
    assert contents(out) == before


@pytest.mark.parametrize("force", [False, True])
def test_dry_run_writes_nothing(photos: Path, tmp_path: Path, force: bool) -> None:
    out = tmp_path / "out"
    plan = plan_run(photos, out, dry_run=True, force=force)
    assert (plan.num_images, plan.num_bytes, plan.num_shards) == (10, 45, 3)
    assert not out.exists()
    real = plan_run(photos, out)
    assert real.fingerprint == plan.fingerprint
    before = contents(out)
    assert plan_run(photos, out, dry_run=True, force=force).is_resumed
    changed = plan_run(photos, out, "amg.min_area=1", dry_run=True, force=True)
    assert not changed.is_resumed
    assert contents(out) == before


def test_foreign_output_is_refused_even_by_force(photos: Path, tmp_path: Path) -> None:
    for force in (False, True):
        with pytest.raises(ConfigError, match="which has"):
            plan_run(photos, photos, force=force)
    assert len(list(photos.iterdir())) == 10


def test_missing_addresses_and_weights(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="INPUT"):
        plan_run("", tmp_path / "out")
    with pytest.raises(ConfigError, match="OUTPUT"):
        plan_run(photos, "")
    with pytest.raises(ConfigError, match="amg weights fetch vit_b"):
        plan_run(photos, tmp_path / "out", "model.variant=vit_b")
    assert not (tmp_path / "out").exists()
    assert plan_run(
        photos, tmp_path / "out", "model.variant=vit_b", "model.weights=/w.pth"
    ).stored.weights_sha256 == digest("vit_b", "/w.pth")


@pytest.mark.parametrize("place", ["images.input", "output.uri", "model.weights"])
def test_passwords_in_addresses_are_refused_and_not_repeated(
    photos: Path, tmp_path: Path, place: str
) -> None:
    override = f"{place}=memory://me:se@cret@bucket/x"
    with pytest.raises(ConfigError, match="must hold no password") as caught:
        plan_run(photos, tmp_path / "out", override)
    assert "memory://bucket/x" in str(caught.value)
    assert "cret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_addresses_in_differences_hide_their_signatures(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(planning, "list_images", lambda images: list_images(folder))
    folder = config_for(photos, out).images
    plan_run("https://host/list.csv?signature=old", out)
    with pytest.raises(FingerprintMismatchError, match=r"https://host/list\.csv'") as caught:
        plan_run("https://host/list.csv?signature=new", out)
    assert "signature" not in str(caught.value)


# The model


@pytest.mark.parametrize("dry_run", [False, True])
def test_model_that_cannot_be_made_leaves_no_plan(
    photos: Path, tmp_path: Path, dry_run: bool
) -> None:
    with pytest.raises(WeightsError):
        plan_run(photos, tmp_path / "out", check_model=refuse, dry_run=dry_run)
    assert not (tmp_path / "out").exists()
    assert not plan_run(photos, tmp_path / "out").is_resumed


def test_model_that_cannot_be_made_moves_nothing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(plan_run(photos, out))
    before = contents(out)
    with pytest.raises(WeightsError):
        plan_run(photos, out, "amg.min_area=1", force=True, check_model=refuse)
    assert contents(out) == before


def test_model_of_a_plan_that_is_there_is_not_checked_again(photos: Path, tmp_path: Path) -> None:
    plan_run(photos, tmp_path / "out")
    assert plan_run(photos, tmp_path / "out", check_model=refuse).is_resumed


def write_weights(path: Path, variant: str) -> Path:
    """Write zeros in the shapes of a variant."""
    tensors = {
        name: SourceTensor(name, shape, "float32", lambda shape=shape: np.zeros(shape, np.float32))
        for name, shape in expected_shapes(of_preset(PRESETS[variant])).items()
    }
    with path.open("wb") as file:
        write_safetensors(file, tensors, dtype="float32", metadata={})
    return path


def test_weights_of_the_variant_are_accepted(photos: Path, tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors", "tiny")
    plan = plan_run(photos, tmp_path / "out", f"model.weights={weights}", check_model=None)
    assert not plan.is_resumed


def test_packaged_weights_are_accepted(photos: Path, tmp_path: Path) -> None:
    if packaged_weights("tiny") is None:
        pytest.skip("the package has no weights yet")
    plan = plan_run(photos, tmp_path / "out", check_model=None, weights_digest=None)
    assert not plan.is_resumed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param(["model.variant=vit_b"], "of another shape", id="variant"),
        pytest.param(["model.weights={tmp}/in/3.jpg"], "weights as", id="photo"),
        pytest.param(["model.weights={tmp}/absent"], "absent", id="absent"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    photos: Path, tmp_path: Path, overrides: list[str], message: str
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", "tiny")
    settings = [f"model.weights={weights}", *(o.format(tmp=tmp_path) for o in overrides)]
    with pytest.raises(WeightsError, match=message):
        plan_run(photos, tmp_path / "out", *settings, check_model=None)
    assert not (tmp_path / "out").exists()


def test_backend_that_is_not_installed_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: asked.append(name))
    with pytest.raises(ConfigError, match=r"amg_pipeline\[jax\]"):
        plan_run(photos, tmp_path / "out", "model.backend=jax", check_model=None)
    assert asked == ["jax"]
    assert not (tmp_path / "out").exists()


def test_relative_weights_become_absolute(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = plan_run(photos, "out", "model.weights=w.pth")
    assert plan.config.model.weights == f"{tmp_path}/w.pth"
    assert plan.run_directory.uri == f"{tmp_path}/out"


def test_machine_decides_the_threads_by_default(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    plan = plan_run(photos, tmp_path / "out", cpu_count=None)
    assert plan.config.model.intra_op_threads == 5


def test_damaged_plan_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    ObjectStore.open(str(tmp_path / "out")).put(PLAN_KEY, b"{")
    with pytest.raises(StorageError, match="plan of this version"):
        plan_run(photos, tmp_path / "out", force=True)


# Two drivers


def race(monkeypatch: pytest.MonkeyPatch, winner: Any) -> None:
    """Let another driver make its plan just before ours is created."""
    create = RunDirectory.create_plan

    def late(directory: RunDirectory, stored: Any) -> None:
        monkeypatch.setattr(RunDirectory, "create_plan", create)
        winner()
        create(directory, stored)

    monkeypatch.setattr(RunDirectory, "create_plan", late)


def test_slower_driver_takes_up_the_faster_ones_plan(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def faster() -> None:
        (photos / "new.jpg").touch()
        plan_run(photos, out)

    race(monkeypatch, faster)
    plan = plan_run(photos, out)
    assert plan.is_resumed
    assert plan.num_images == 11
    finish(plan)
    assert load_masks(str(out)).count_rows() == 11


def test_slower_driver_with_other_settings_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    race(monkeypatch, lambda: plan_run(photos, out, "amg.min_area=5"))
    with pytest.raises(FingerprintMismatchError, match="min_area"):
        plan_run(photos, out)


# Killed anywhere


def run_with_deaths(
    monkeypatch: pytest.MonkeyPatch,
    photos: Path,
    out: Path,
    *overrides: str,
    kill_at: int,
    **options: Any,
) -> bool:
    """Start a run whose process ends at one step; True if it got to the end before that."""

    def mortal(uri: str, **_: Any) -> RunDirectory:
        return RunDirectory(ObjectStore(MortalFiles(uri, kill_at=kill_at)))

    with monkeypatch.context() as patch:
        patch.setattr(RunDirectory, "open", mortal)
        try:
            finish(plan_run(photos, out, *overrides, **options))
        except Killed:
            return False
    return True


def test_killed_after_any_step_and_resumed_gives_the_same_bytes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish(plan_run(photos, tmp_path / "undisturbed"))
    stored = contents(tmp_path / "undisturbed")
    expected = {key: data.replace(b"/undisturbed", b"/killed-00") for key, data in stored.items()}
    for kill_at in range(100):
        out = tmp_path / f"killed-{kill_at:02d}"
        done = run_with_deaths(monkeypatch, photos, out, kill_at=kill_at)
        finish(plan_run(photos, out))
        found = {
            key: data.replace(f"/killed-{kill_at:02d}".encode(), b"/killed-00")
            for key, data in contents(out).items()
        }
        assert found == expected, f"killed at step {kill_at}"
        if done:
            break
    # One part of the plan, the plan, three shards, summary and success: two steps each.
    assert kill_at == 14


def test_killed_at_every_step_of_one_run(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that never does more than two steps at a time still ends."""
    out = tmp_path / "out"
    deaths = 0
    while not run_with_deaths(monkeypatch, photos, out, kill_at=4):
        deaths += 1
        assert deaths < 20
    assert deaths == 3
    assert load_masks(str(out)).count_rows() == 10


def test_killed_force_leaves_a_state_that_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kill_at in range(60):
        out = tmp_path / f"out-{kill_at}"
        old = plan_run(photos, out, "amg.min_area=1")
        finish(old)
        before = contents(out)
        done = run_with_deaths(monkeypatch, photos, out, kill_at=kill_at, force=True)
        has_old_plan = (
            stored := RunDirectory.open(str(out)).read_plan()
        ) is not None and stored.fingerprint == old.fingerprint
        finish(plan_run(photos, out, force=has_old_plan))
        assert load_masks(str(out)).count_rows() == 10
        assert contents(out / "_old" / old.fingerprint[:8]) == before
        if done:
            break
    assert kill_at > 20


def test_the_settings_of_stores_hold_in_this_process(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[StorageSettings] = []
    monkeypatch.setattr(planning, "configure_stores", asked.append)

    config = config_for(photos, tmp_path / "out", "storage.endpoint_url=http://127.0.0.1:1")
    make_plan(config, package_version="0.1.0", weights_digest=digest, check_model=accept)

    assert [settings.endpoint_url for settings in asked] == ["http://127.0.0.1:1"]


def test_a_slower_driver_with_more_cores_takes_up_the_faster_ones_plan(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    race(monkeypatch, lambda: plan_run(photos, out, cpu_count=2))

    plan = plan_run(photos, out, cpu_count=16)

    assert plan.is_resumed
    assert plan.config.model.intra_op_threads == 2
