"""A plan: made once, taken up again, refused with other settings, replaced by force."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline import planning
from amg_pipeline.config import StorageSettings, load_config
from amg_pipeline.errors import ConfigError, FingerprintMismatchError, StorageError
from amg_pipeline.planning import make_plan
from amg_pipeline.storage.layout import PLAN_KEY
from amg_pipeline.storage.manifest import list_images
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.object_store import ObjectStore
from tests.photo_runs import accept, everything_in
from tests.plans import config_for, digest, finish, plan_run, write_names


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_names(tmp_path / "in")


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
    before = everything_in(out)
    for dry_run in (False, True):
        with pytest.raises(FingerprintMismatchError, match=message):
            plan_run(photos, out, *overrides, dry_run=dry_run)
    assert everything_in(out) == before


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
    before = everything_in(out)
    new = plan_run(photos, out, "amg.pred_iou_thresh=0.9", force=True)
    assert not new.is_resumed
    folder = out / "_old" / old.fingerprint[:8]
    assert everything_in(folder) == before
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
    before = everything_in(out)
    again = plan_run(photos, out, force=True, cpu_count=cpu_count)
    assert again.is_resumed
    assert again.stored == first.stored
    assert everything_in(out) == before


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


def test_force_with_unusable_input_touches_nothing(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(plan_run(photos, out))
    before = everything_in(out)
    with pytest.raises(ConfigError, match="exists"):
        plan_run(tmp_path / "absent", out, force=True)
    assert everything_in(out) == before


@pytest.mark.parametrize("force", [False, True])
def test_dry_run_writes_nothing(photos: Path, tmp_path: Path, force: bool) -> None:
    out = tmp_path / "out"
    plan = plan_run(photos, out, dry_run=True, force=force)
    assert (plan.num_images, plan.num_bytes, plan.num_shards) == (10, 45, 3)
    assert not out.exists()
    real = plan_run(photos, out)
    assert real.fingerprint == plan.fingerprint
    before = everything_in(out)
    assert plan_run(photos, out, dry_run=True, force=force).is_resumed
    changed = plan_run(photos, out, "amg.min_area=1", dry_run=True, force=True)
    assert not changed.is_resumed
    assert everything_in(out) == before


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


@pytest.mark.parametrize("place", ["images.input", "model.weights"])
def test_signatures_in_addresses_are_refused_and_not_repeated(
    photos: Path, tmp_path: Path, place: str
) -> None:
    override = f"{place}=https://host/a.csv?X-Amz-Date=1&X-Amz-Signature=5ec7e7"
    with pytest.raises(ConfigError, match="no signature") as caught:
        plan_run(photos, tmp_path / "out", override)
    assert "5ec7e7" not in str(caught.value)


def test_addresses_in_differences_hide_their_queries(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr(planning, "list_images", lambda images: list_images(folder))
    folder = config_for(photos, out).images
    plan_run("https://host/list.csv?key=old", out)
    with pytest.raises(FingerprintMismatchError, match=r"https://host/list\.csv'") as caught:
        plan_run("https://host/list.csv?key=new", out)
    assert "key=" not in str(caught.value)


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


@pytest.mark.parametrize(
    ("overrides", "address", "threads"),
    [
        pytest.param(["workers.workers=3"], None, 16, id="however many they are"),
        pytest.param(["workers.address=head:6379"], None, 3, id="what it asks a cluster for"),
        pytest.param(["workers.decode_threads=7"], "head:6379", 8, id="a cluster of Ray's own"),
    ],
)
def test_workers_decide_the_threads_by_default(
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overrides: list[str],
    address: str | None,
    threads: int,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    plan = plan_run(photos, tmp_path / "out", *overrides, cpu_count=16)
    assert plan.config.model.intra_op_threads == threads


def test_damaged_plan_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    ObjectStore.open(str(tmp_path / "out")).put(PLAN_KEY, b"{")
    with pytest.raises(StorageError, match="plan of this version"):
        plan_run(photos, tmp_path / "out", force=True)


def test_the_settings_of_stores_hold_in_this_process(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[StorageSettings] = []
    monkeypatch.setattr(planning, "configure_stores", asked.append)

    config = config_for(photos, tmp_path / "out", "storage.endpoint_url=http://127.0.0.1:1")
    make_plan(config, package_version="0.1.0", weights_digest=digest, check_model=accept)

    assert [settings.endpoint_url for settings in asked] == ["http://127.0.0.1:1"]
