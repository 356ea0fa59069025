"""The run that never was: valid, and the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_directory import RunDirectory
from benchmarks import synthetic_run


def test_synthetic_run_verifies_and_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic_run, "POOL_MASKS", 12)
    monkeypatch.setattr(synthetic_run, "SHARD_IMAGES", 3)
    for name in ("one", "two"):
        synthetic_run.write_synthetic_run(tmp_path / name, images=4, masks=5)
    directory = RunDirectory.open(str(tmp_path / "one"))
    plan = directory.require_plan()

    assert list(directory.verify(plan)) == []
    assert directory.count_rows(plan).masks == 20
    one, two = (load_masks(str(tmp_path / name)).to_table() for name in ("one", "two"))
    assert one.equals(two)
