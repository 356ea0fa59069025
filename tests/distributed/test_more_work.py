"""Rows that are done again, and images in tars and Parquet files, on a real Ray."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg_pipeline.distributed.driver import run_distributed
from amg_pipeline.local_runner import run_locally
from amg_pipeline.work import find_work
from tests.distributed import stubs
from tests.photo_runs import make_threshold_generator, plan_photos, stored_masks, write_photos
from tests.storage.tars import make_tar

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_ray")]


def test_rows_are_done_again_to_the_undisturbed_bytes(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "in", 7)
    data = {name: (photos / name).read_bytes() for name in ("001.png", "004.png")}
    for name in data:
        (photos / name).unlink()
    manifest = tmp_path / "m.csv"
    manifest.write_text("uri\n" + "\n".join(f"in/{number:03d}.png" for number in range(7)))
    plan = plan_photos(manifest, tmp_path / "again", "workers.workers=2")
    whole = plan_photos(manifest, tmp_path / "whole")
    outcome = run_distributed(plan, make_generator=stubs.make_threshold_generator)
    assert outcome.counts.images == {"ok": 5, "fetch_error": 2}

    for name, content in data.items():
        (photos / name).write_bytes(content)
    run_locally(whole, make_generator=make_threshold_generator)
    work = find_work(plan, retry_statuses=["fetch_error"])
    seen: list[int] = []
    outcome = run_distributed(
        plan, work=work, on_image=seen.append, make_generator=stubs.make_threshold_generator
    )

    assert outcome.counts.images == {"ok": 7}
    assert outcome.new_images == 2
    assert len(seen) == 7 - work.num_images_done == 4
    assert stored_masks(tmp_path / "again") == stored_masks(tmp_path / "whole")


@pytest.mark.parametrize("kind", ["tar", "parquet"])
def test_images_in_files_of_many(tmp_path: Path, kind: str) -> None:
    photos = sorted(write_photos(tmp_path / "in", 7).iterdir())
    data = [path.read_bytes() for path in photos]
    if kind == "tar":
        (tmp_path / "a.tar").write_bytes(make_tar({f"{i}.png": d for i, d in enumerate(data)}))
    else:
        pq.write_table(pa.table({"image": data}), tmp_path / "a.parquet", row_group_size=3)
    local = plan_photos(tmp_path / f"a.{kind}", tmp_path / "local")
    run_locally(local, make_generator=make_threshold_generator)
    plan = plan_photos(tmp_path / f"a.{kind}", tmp_path / "ray", "workers.workers=2")
    outcome = run_distributed(plan, make_generator=stubs.make_threshold_generator)
    assert outcome.counts.images == {"ok": 7}
    assert stored_masks(tmp_path / "ray") == stored_masks(tmp_path / "local")
