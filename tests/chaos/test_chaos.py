"""Runs that are killed again and again end with the bytes of a run that nobody disturbed.

AMG_CHAOS_RUNS says how many storms there are; some of them run `tiny` itself.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.chaos.storm import ChaosCluster, Storm, chaos_cluster
from tests.photo_runs import write_photos
from tests.s3.ceph_gateway import ceph_gateway
from tests.s3.faulty_proxy import FaultyProxy, faulty_proxy
from tests.s3.s3_server import S3Server

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

RUNS = int(os.environ.get("AMG_CHAOS_RUNS", "3"))
#: Every tenth storm, and the second one, has the real model.
TINY_SEEDS = frozenset({1, 10})
IMAGES = 64
SHARD_SIZE = 4
RATES = {
    "slow_down": 0.02,
    "internal_error": 0.01,
    "reset_before": 0.01,
    "reset_after": 0.02,
    "error_after": 0.01,
    "stall_before": 0.002,
    "slow_body": 0.01,
    "cut_body": 0.01,
    "short_body": 0.005,
}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    # pytest's own folders have names too long for sockets.
    with (
        tempfile.TemporaryDirectory(prefix="ceph-", dir="/tmp") as folder,
        ceph_gateway(Path(folder)) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def proxy(server: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(server.endpoint, stall_s=6.0) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(server: S3Server, proxy: FaultyProxy) -> Iterator[ChaosCluster]:
    """A cluster whose workers reach the server through the proxy only."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.through(proxy.endpoint).environment().items():
            patch.setenv(name, value)
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        with chaos_cluster() as running:
            yield running


@pytest.fixture(scope="module")
def bucket(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bucket with the photos of all storms."""
    name = server.new_bucket()
    folder = write_photos(tmp_path_factory.mktemp("photos") / "in", IMAGES)
    (folder / "005.png").write_bytes(b"no image")
    for path in sorted(folder.iterdir()):
        server.client().put_object(Bucket=name, Key=f"in/{path.name}", Body=path.read_bytes())
    return name


def objects(server: S3Server, bucket: str, prefix: str) -> dict[str, str]:
    """ETags by key; a server's ETag of a single PUT is the MD5 of its bytes."""
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {
        item["Key"].removeprefix(prefix): item["ETag"]
        for page in pages
        for item in page.get("Contents", ())
    }


def arguments(bucket: str, output: str, seed: int | None = None) -> list[str]:
    """What a driver is told; `tiny` takes fewer images, of which each takes longer."""
    common = [f"s3://{bucket}/in", f"s3://{bucket}/{output}", "--shard-size", str(SHARD_SIZE)]
    return [*common, "--model", "tiny" if seed in TINY_SEEDS else "stub", "--seconds", "0.25"]


@pytest.fixture(scope="module")
def undisturbed(server: S3Server, cluster: ChaosCluster, bucket: str) -> dict[str, dict[str, str]]:
    """The objects of a run that nothing happened to, by model."""
    found = {}
    for model, seed in (("stub", None), ("tiny", min(TINY_SEEDS))):
        if seed is not None and seed >= RUNS:
            continue
        words = [*arguments(bucket, f"{model}-quiet", seed), "--address", cluster.address]
        ended = _run_driver(words)
        assert ended.returncode == 0, ended.stdout[-3000:]
        found[model] = objects(server, bucket, f"{model}-quiet/masks/")
        assert len(found[model]) == IMAGES // SHARD_SIZE
    return found


@pytest.mark.parametrize("seed", range(RUNS))
def test_a_storm_changes_no_byte(
    seed: int,
    server: S3Server,
    proxy: FaultyProxy,
    cluster: ChaosCluster,
    bucket: str,
    undisturbed: dict[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    proxy.seed, proxy.rates = seed, RATES
    masks = f"storm-{seed}/masks/"
    storm = Storm(
        cluster=cluster,
        seed=seed,
        arguments=arguments(bucket, f"storm-{seed}", seed),
        committed=lambda: len(objects(server, bucket, masks)),
        log=tmp_path / "drivers.log",
        marks=tmp_path,
    )
    try:
        code = storm.rage(shards=IMAGES // SHARD_SIZE)
    finally:
        proxy.rates = {}
    log = storm.log.read_text(errors="replace")
    print(f"storm {seed}: {dict(storm.done)}, {storm.drivers} drivers, exit code {code}")

    assert code == 0, log[-4000:]
    assert sum(storm.done.values()) >= storm.kills, "the run was over too early to be a test"
    model = "tiny" if seed in TINY_SEEDS else "stub"
    assert objects(server, bucket, masks) == undisturbed[model], log[-4000:]
    ids = image_ids(server, bucket, masks)
    assert ids == sorted(set(ids))
    assert len(ids) == IMAGES


def image_ids(server: S3Server, bucket: str, prefix: str) -> list[str]:
    """The image ids of all rows, each object read."""
    client = server.client()
    tables = [
        pq.read_table(
            io.BytesIO(client.get_object(Bucket=bucket, Key=prefix + key)["Body"].read()),
            columns=["image_id"],
        )
        for key in sorted(objects(server, bucket, prefix))
    ]
    return [value for table in tables for value in table.column("image_id").to_pylist()]


def _run_driver(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.chaos.driver", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
