"""A plan of one shard."""

from __future__ import annotations

from pathlib import Path

import pytest

from amg_pipeline.planning import Plan
from tests.photo_runs import plan_photos, write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "in", 6)


@pytest.fixture
def plan(photos: Path, tmp_path: Path) -> Plan:
    """One shard of six photos."""
    return plan_photos(photos, tmp_path / "out", shard_size=6)
