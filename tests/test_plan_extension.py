"""`--extend`: images that were added since become new shards, and nothing else moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amg_pipeline import planning
from amg_pipeline.errors import CommitConflictError, ConfigError, FingerprintMismatchError
from amg_pipeline.planning import Plan
from amg_pipeline.storage.layout import SUCCESS_KEY, edition_key
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from amg_pipeline.storage.stored_plan import StoredPlan
from tests.photo_runs import everything_in
from tests.plans import finish, plan_run, race
from tests.storage.doubles import Killed, MortalFiles
from tests.storage.tars import make_tar

Shards = dict[int, list[str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return add(tmp_path / "in", *(f"m{number}.jpg" for number in range(10)))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def add(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode())
    return folder


def shards(plan: Plan) -> Shards:
    found = plan.run_directory.shards(plan.stored)
    return {shard.shard_id: [ref.image_id for ref in shard.images] for shard in found}


def stored_shards(out: Path) -> Shards:
    """The shards as a run that starts now finds them."""
    directory = RunDirectory.open(str(out))
    plan = directory.require_plan()
    found = {s.shard_id: [ref.image_id for ref in s.images] for s in directory.shards(plan)}
    assert list(found) == list(range(plan.num_shards))
    assert sum(map(len, found.values())) == plan.num_images == plan.count_images(found)
    assert all(plan.count_images([number]) == len(ids) for number, ids in found.items())
    return found


OLD = {0: ["m0", "m1", "m2", "m3"], 1: ["m4", "m5", "m6", "m7"], 2: ["m8", "m9"]}
BEFORE = {number: [f"{name}.jpg" for name in names] for number, names in OLD.items()}


def test_new_images_are_new_shards(photos: Path, out: Path) -> None:
    first = plan_run(photos, out)
    assert shards(first) == BEFORE
    finish(first)
    done = everything_in(out / "masks")
    add(photos, "a.jpg", "m10.jpg", "z.jpg", "m5b.jpg", "n.jpg")
    extended = plan_run(photos, out, extend=True)
    expected = {**BEFORE, 3: ["a.jpg", "m10.jpg", "m5b.jpg", "n.jpg"], 4: ["z.jpg"]}
    assert shards(extended) == stored_shards(out) == expected
    assert extended.is_resumed
    assert extended.fingerprint == first.fingerprint
    assert extended.num_images == 15
    assert extended.num_bytes == first.num_bytes + sum(
        len(name) for name in ("a.jpg", "m10.jpg", "z.jpg", "m5b.jpg", "n.jpg")
    )
    assert extended.run_directory.committed(extended.stored) == {0, 1, 2}
    finish(extended)
    now = everything_in(out / "masks")
    assert {key: now[key] for key in done} == done
    assert load_masks(str(out)).count_rows() == 15
    assert list(extended.run_directory.verify(extended.stored)) == []


def test_editions_follow_one_another(photos: Path, out: Path) -> None:
    plan_run(photos, out)
    for round_number in range(3):
        add(photos, f"x{round_number}.jpg")
        plan_run(photos, out, extend=True)
    last = {3: ["x0.jpg"], 4: ["x1.jpg"], 5: ["x2.jpg"]}
    assert stored_shards(out) == {**BEFORE, **last}
    assert shards(plan_run(photos, out)) == {**BEFORE, **last}
    assert plan_run(photos, out).stored.edition == 4


def test_without_new_images_nothing_is_written(photos: Path, out: Path) -> None:
    finish(plan_run(photos, out))
    before = everything_in(out)
    (photos / "m3.jpg").unlink()
    assert shards(plan_run(photos, out, extend=True)) == BEFORE
    assert everything_in(out) == before


def test_without_the_option_nothing_is_listed(photos: Path, out: Path) -> None:
    plan_run(photos, out)
    add(photos, "z.jpg")
    assert shards(plan_run(photos, out)) == BEFORE


def test_first_run_lists_everything(photos: Path, out: Path) -> None:
    assert shards(plan_run(photos, out, extend=True)) == BEFORE


def test_dry_run_counts_and_writes_nothing(photos: Path, out: Path) -> None:
    finish(plan_run(photos, out))
    before = everything_in(out)
    add(photos, "z.jpg")
    plan = plan_run(photos, out, extend=True, dry_run=True)
    assert (plan.num_images, plan.num_shards) == (11, 4)
    assert plan.run_directory.committed(plan.stored) == {0, 1, 2}
    assert everything_in(out) == before


def test_run_is_not_a_success_until_the_new_shards_are_done(photos: Path, out: Path) -> None:
    finish(plan_run(photos, out))
    assert (out / SUCCESS_KEY).exists()
    add(photos, "z.jpg")
    plan_run(photos, out, extend=True)
    assert not (out / SUCCESS_KEY).exists()


@pytest.mark.parametrize("setting", ["images.limit=12", "images.sample=12"])
def test_chosen_images_cannot_be_extended(photos: Path, out: Path, setting: str) -> None:
    plan_run(photos, out, setting)
    with pytest.raises(ConfigError, match=r"--extend.*(limit|sample) 12"):
        plan_run(photos, out, setting, extend=True)


def test_other_settings_are_refused(photos: Path, out: Path) -> None:
    plan_run(photos, out)
    with pytest.raises(FingerprintMismatchError):
        plan_run(photos, out, "amg.pred_iou_thresh=0.7", extend=True)


def test_filters_hold_for_new_images(photos: Path, out: Path) -> None:
    plan_run(photos, out, "images.exclude=['y*']")
    add(photos, "y.jpg", "z.jpg")
    assert shards(plan_run(photos, out, "images.exclude=['y*']", extend=True))[3] == ["z.jpg"]


def test_new_tars(tmp_path: Path, out: Path) -> None:
    tars = tmp_path / "tars"
    tars.mkdir()
    (tars / "b.tar").write_bytes(make_tar({f"{i}.jpg": b"1" for i in range(5)}))
    plan_run(tars, out)
    (tars / "a.tar").write_bytes(make_tar({"0.jpg": b"2"}))
    plan_run(tars, out, extend=True)
    assert stored_shards(out) == {
        0: [f"b.tar/{i}.jpg" for i in range(4)],
        1: ["b.tar/4.jpg"],
        2: ["a.tar/0.jpg"],
    }


def test_force_moves_every_edition(photos: Path, out: Path) -> None:
    plan_run(photos, out)
    add(photos, "z.jpg")
    finish(plan_run(photos, out, extend=True))
    plan = plan_run(photos, out, "amg.pred_iou_thresh=0.7", force=True)
    assert plan.stored.edition == 1
    assert plan.num_images == 11
    assert len(list((out / "_old").glob("*/_amg/plan*.json"))) == 2
    assert not (out / edition_key(2)).exists()


def test_editions_of_another_run_are_not_read(photos: Path, out: Path) -> None:
    plan = plan_run(photos, out)
    (out / edition_key(2)).write_bytes(
        StoredPlan.from_json(plan.stored.to_json())
        .to_json()
        .replace(plan.fingerprint.encode(), b"0" * 64)
    )
    assert stored_shards(out) == BEFORE
    add(photos, "z.jpg")
    with pytest.raises(CommitConflictError):
        plan_run(photos, out, extend=True)


# Kills, and two drivers


def mortal(monkeypatch: pytest.MonkeyPatch, kill_at: int) -> None:
    def open_directory(uri: str, **options: Any) -> RunDirectory:
        return RunDirectory(ObjectStore(MortalFiles(uri, kill_at=kill_at), **options))

    monkeypatch.setattr(planning.RunDirectory, "open", open_directory)


@pytest.mark.parametrize("kill_at", range(6))
def test_kill_loses_nothing(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    finish(plan_run(photos, out))
    add(photos, "a.jpg", "z.jpg")
    with monkeypatch.context() as patch:
        mortal(patch, kill_at)
        with pytest.raises(Killed):
            plan_run(photos, out, extend=True)
    survived = stored_shards(out)
    assert survived in (BEFORE, {**BEFORE, 3: ["a.jpg", "z.jpg"]})
    # More came while nobody looked.
    add(photos, "b.jpg")
    plan_run(photos, out, extend=True)
    now = stored_shards(out)
    assert {number: now[number] for number in survived} == survived
    assert sorted(name for names in now.values() for name in names) == sorted(
        path.name for path in photos.iterdir()
    )


def test_two_drivers_add_each_image_once(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_run(photos, out)
    add(photos, "a.jpg", "b.jpg")

    def faster() -> None:
        # It lists one image more.
        add(photos, "c.jpg")
        plan_run(photos, out, extend=True)

    race(monkeypatch, faster)
    plan = plan_run(photos, out, extend=True)
    expected = {**BEFORE, 3: ["a.jpg", "b.jpg", "c.jpg"]}
    assert shards(plan) == stored_shards(out) == expected


def test_slower_driver_adds_what_only_it_saw(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_run(photos, out)
    add(photos, "a.jpg", "b.jpg")

    def faster() -> None:
        (photos / "b.jpg").rename(photos / "hidden")
        plan_run(photos, out, extend=True)

    race(monkeypatch, faster)
    plan_run(photos, out, extend=True)
    assert stored_shards(out) == {**BEFORE, 3: ["a.jpg"], 4: ["b.jpg"]}
