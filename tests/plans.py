"""Plans of files that are never opened, and what is left of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.config import RunConfig, load_config
from amg_pipeline.planning import Plan, make_plan
from amg_pipeline.records import ImageResult
from amg_pipeline.storage.mask_table import encode_table
from amg_pipeline.storage.run_directory import RunDirectory
from tests.photo_runs import accept


def write_names(folder: Path) -> Path:
    """Ten files that are never opened, of different sizes."""
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(b"x" * number)
    return folder


def digest(variant: str, weights: str | None) -> str:
    """Stand in for the digest of weights."""
    return f"{variant}-{weights}".encode().hex().ljust(64, "0")


def config_for(photos: object, out: object, *overrides: str) -> RunConfig:
    """Shards of four images."""
    return load_config(
        overrides=["output.shard_size=4", *overrides],
        settings={"images": {"input": str(photos)}, "output": {"uri": str(out)}},
    )


def plan_run(photos: object, out: object, *overrides: str, **options: Any) -> Plan:
    """Plan for weights and a model that need not exist."""
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


def race(monkeypatch: pytest.MonkeyPatch, winner: Any) -> None:
    """Let another driver make its plan just before ours is created."""
    create = RunDirectory.create_plan

    def late(directory: RunDirectory, stored: Any) -> None:
        monkeypatch.setattr(RunDirectory, "create_plan", create)
        winner()
        create(directory, stored)

    monkeypatch.setattr(RunDirectory, "create_plan", late)
