"""One measurement of `benchmarks.scale`, in a process of its own so that its memory is its own.

    python -m benchmarks.scale_parts PART SIZE

prints one line of JSON. Peak memory is what the kernel says, less what was held at the start.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from amg_pipeline import __version__
from amg_pipeline.config import load_config
from amg_pipeline.planning import Plan, make_plan
from amg_pipeline.records import ImageRef, ImageResult
from amg_pipeline.storage.layout import shard_key
from amg_pipeline.storage.mask_table import encode_table

SHARD_SIZE = 100
_MIB = 2**20


def measure_plan(images: int, folder: Path) -> dict[str, Any]:
    """Plan from a manifest; nothing but addresses is read or made."""
    manifest = _write_manifest(images, folder)
    before = _memory()
    started = time.perf_counter()
    plan = _plan(manifest, folder / "out")
    seconds = time.perf_counter() - started
    written = sum(path.stat().st_size for path in (folder / "out").rglob("*") if path.is_file())
    return {
        "images": plan.num_images,
        "seconds": seconds,
        "peak_mib": _peak() - before,
        "plan_mib": written / _MIB,
    }


def measure_resume(shards: int, folder: Path) -> dict[str, Any]:
    """Take up a run of which half of the shards, drawn at random, are done."""
    images = shards * SHARD_SIZE
    manifest = _write_manifest(images, folder)
    plan = _plan(manifest, folder / "out")
    done = np.random.default_rng(0).permutation(shards)[: shards // 2]
    _commit(plan, folder / "out", done.tolist())
    seconds: dict[str, float] = {}
    before = _memory()

    with _timed(seconds, "take_up"):
        plan = _plan(manifest, folder / "out")
    with _timed(seconds, "list_done"):
        committed = plan.run_directory.committed(plan.stored)
    with _timed(seconds, "list_attempts"):
        plan.run_directory.read_all_attempts(skip=committed)
    left = plan.run_directory.shards(plan.stored, skip=committed)
    with _timed(seconds, "first_shard"):
        next(left)
    resumed_mib = _peak() - before
    with _timed(seconds, "all_shards"):
        rows = sum(len(shard.images) for shard in left)
    with _timed(seconds, "final_count"):
        counted = plan.run_directory.count_rows(plan.stored)
    assert len(committed) == len(done)
    assert rows == (shards - len(done) - 1) * SHARD_SIZE
    assert counted.images == {"ok": len(done) * SHARD_SIZE}
    until_first = sum(seconds[name] for name in _UNTIL_FIRST)
    return {
        "shards": shards,
        "images": images,
        "seconds_until_first_shard": until_first,
        "seconds": seconds,
        "peak_mib_until_first_shard": resumed_mib,
        "peak_mib": _peak() - before,
    }


_UNTIL_FIRST = ("take_up", "list_done", "list_attempts", "first_shard")


def measure_driver(images: int, folder: Path) -> dict[str, Any]:
    """Hand shards to workers that only tell of rows; what is left is the driver's own cost."""
    import ray

    from amg_pipeline.distributed import pool
    from amg_pipeline.distributed.driver import run_distributed
    from amg_pipeline.distributed.worker import ShardWorker
    from benchmarks.scale_stubs import TellingWorker

    plan = _plan(_write_manifest(images, folder), folder / "out", "workers.workers=2")
    assert issubclass(pool.MaskWorker, ShardWorker), "what the pool makes actors of"
    pool.MaskWorker = TellingWorker  # type: ignore[misc,assignment]
    first: list[tuple[float, float]] = []

    def on_image(_masks: int) -> None:
        if not first:
            # Processes that start are not the driver's cost.
            first.append((time.perf_counter(), time.process_time()))

    with _local_ray(ray):
        before = _memory()
        outcome = run_distributed(plan, on_image=on_image)
        elapsed = time.perf_counter() - first[0][0]
        cpu_seconds = time.process_time() - first[0][1]
        peak = _peak() - before
    assert outcome.new_images == images
    messages = images / TellingWorker.rows_per_message + images / SHARD_SIZE
    return {
        "images": images,
        "rows_per_message": TellingWorker.rows_per_message,
        "seconds": elapsed,
        "cpu_seconds": cpu_seconds,
        "cpu_microseconds_per_image": cpu_seconds / images * 1e6,
        "cpu_microseconds_per_message": cpu_seconds / messages * 1e6,
        "peak_mib": peak,
    }


def measure_workers(images: int, folder: Path) -> dict[str, Any]:
    """Run eight workers whose model sleeps 50 ms an image; all else is what a real run does."""
    import ray

    from amg_pipeline.distributed.driver import run_distributed
    from benchmarks.scale_stubs import SleepingGenerator, load_blank

    workers, seconds = 8, 0.05
    stamps = folder / "stamps"
    stamps.mkdir()
    plan = _plan(_write_manifest(images, folder), folder / "out", f"workers.workers={workers}")
    with _local_ray(ray):
        cpu, started = time.process_time(), time.perf_counter()
        run_distributed(plan, make_generator=SleepingGenerator(seconds, stamps), load=load_blank)
        cpu_share = (time.process_time() - cpu) / (time.perf_counter() - started)
    rate = steady_rate(stamps, warm_up=5.0)
    return {
        "images": images,
        "workers": workers,
        "shard_size": SHARD_SIZE,
        "nominal_seconds_per_image": seconds,
        "share_of_ideal": rate["images_per_second"] * seconds / workers,
        "driver_cpu_share": cpu_share,
        "load_average": os.getloadavg()[0],
        **rate,
    }


def steady_rate(folder: Path, *, warm_up: float) -> dict[str, float]:
    """Count what was done between the warm-up of the last worker and the end of the first one."""
    stamps = [np.fromfile(path, np.float64).reshape(-1, 2) for path in folder.iterdir()]
    begin = max(worker[0, 0] for worker in stamps) + warm_up
    end = min(worker[-1, 1] for worker in stamps)
    images = busy = 0.0
    for worker in stamps:
        inside = np.clip(worker, begin, end)
        overlap = inside[:, 1] - inside[:, 0]
        busy += float(overlap.sum())
        # An image that reaches over an end of the window counts by its part in it.
        images += float((overlap / (worker[:, 1] - worker[:, 0])).sum())
    window = end - begin
    return {
        "window_seconds": window,
        "images_per_second": images / window,
        "mean_seconds_in_model": busy / images,
        "share_of_time_in_model": busy / window / len(stamps),
    }


def _write_manifest(images: int, folder: Path) -> Path:
    """Name images as they may lie in a bucket, in no order."""
    order = np.random.default_rng(0).permutation(images)
    names = [f"s3://bucket/photos/sa_{n // 11_000:06d}/sa_{n}.jpg" for n in order.tolist()]
    path = folder / "manifest.parquet"
    pq.write_table(pa.table({"uri": names}), path)
    return path


def _plan(manifest: Path, out: Path, *overrides: str) -> Plan:
    config = load_config(
        overrides=[f"output.shard_size={SHARD_SIZE}", "workers.gpus_per_worker=0", *overrides],
        settings={"images": {"input": str(manifest)}, "output": {"uri": str(out)}},
    )
    return make_plan(
        config,
        package_version=__version__,
        weights_digest=lambda _variant, _weights: "0" * 64,
        check_model=lambda _model: None,
        cpu_count=1,
    )


def _commit(plan: Plan, out: Path, shards: list[int]) -> None:
    """Put the same table for each shard, since only its columns of counts are read here."""
    from benchmarks.scale_stubs import SIDE, BlankMasks

    masks = BlankMasks().records
    rows = [
        ImageResult(ImageRef(f"{n}", f"{n}"), "ok", width=SIDE, height=SIDE, masks=masks)
        for n in range(SHARD_SIZE)
    ]
    data = encode_table(rows, plan.table_metadata)
    (out / "masks").mkdir()
    for shard in shards:
        (out / shard_key(shard, plan.fingerprint)).write_bytes(data)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started


@contextmanager
def _local_ray(ray: Any) -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=16,
        include_dashboard=False,
        object_store_memory=100 * _MIB,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield
    finally:
        ray.shutdown()


def _memory() -> float:
    """Give what is held now, in MiB, and forget the peak so far: the preparation's own."""
    Path("/proc/self/clear_refs").write_text("5")
    return _kernel_says("VmRSS")


def _peak() -> float:
    return _kernel_says("VmHWM")


def _kernel_says(key: str) -> float:
    """Read a size of this process; `ru_maxrss` would count what the parent had, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


PARTS: Mapping[str, Any] = {
    "plan": measure_plan,
    "resume": measure_resume,
    "driver": measure_driver,
    "workers": measure_workers,
}


def main(part: str, size: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix="amg-scale-"))
    try:
        print(json.dumps(PARTS[part](int(size), folder)))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
