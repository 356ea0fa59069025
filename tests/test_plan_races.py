"""Plans of two drivers at once, and of drivers that are killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.errors import FingerprintMismatchError
from amg_pipeline.storage.layout import PLAN_KEY
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from tests.photo_runs import everything_in
from tests.plans import finish, plan_run, race, write_names
from tests.storage.doubles import Killed, MortalFiles


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_names(tmp_path / "in")


# Two drivers


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
    stored = everything_in(tmp_path / "undisturbed")
    expected = {key: data.replace(b"/undisturbed", b"/killed-00") for key, data in stored.items()}
    for kill_at in range(100):
        out = tmp_path / f"killed-{kill_at:02d}"
        done = run_with_deaths(monkeypatch, photos, out, kill_at=kill_at)
        finish(plan_run(photos, out))
        found = {
            key: data.replace(f"/killed-{kill_at:02d}".encode(), b"/killed-00")
            for key, data in everything_in(out).items()
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
        before = everything_in(out)
        done = run_with_deaths(monkeypatch, photos, out, kill_at=kill_at, force=True)
        has_old_plan = (
            stored := RunDirectory.open(str(out)).read_plan()
        ) is not None and stored.fingerprint == old.fingerprint
        finish(plan_run(photos, out, force=has_old_plan))
        assert load_masks(str(out)).count_rows() == 10
        assert everything_in(out / "_old" / old.fingerprint[:8]) == before
        if done:
            break
    assert kill_at > 20


def test_a_slower_driver_with_more_cores_takes_up_the_faster_ones_plan(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    race(monkeypatch, lambda: plan_run(photos, out, cpu_count=2))

    plan = plan_run(photos, out, cpu_count=16)

    assert plan.is_resumed
    assert plan.config.model.intra_op_threads == 2


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
