"""How many requests a run makes: what docs/scaling.md counts with, and what a store bills."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from amg_pipeline.local_runner import run_locally
from amg_pipeline.storage.object_store import ObjectStore
from tests.photo_runs import make_threshold_generator, plan_photos, write_photos
from tests.s3.conftest import UseServer
from tests.s3.faulty_proxy import FaultyProxy, faulty_proxy
from tests.s3.s3_server import S3Server

pytestmark = pytest.mark.s3


@pytest.fixture
def proxy(rclone: S3Server, use_server: UseServer) -> Iterator[FaultyProxy]:
    with faulty_proxy(rclone.endpoint, seed=0) as proxy:
        use_server(rclone.through(proxy.endpoint))
        yield proxy


def take_requests(proxy: FaultyProxy) -> Counter[str]:
    """Count the requests by verb and by what they are about, and forget them."""
    counts: Counter[str] = Counter()
    for request in proxy.requests:
        verb = "LIST" if request.is_list else request.method
        path = urlsplit(request.target).path
        about = next(
            (name for name in ("in/", "masks/", "_amg/stats/", "_amg/") if name in path + "/"),
            "rest",
        )
        counts[f"{verb} {about}"] += 1
    proxy.clear()
    return counts


def requests_of_a_run(
    proxy: FaultyProxy, folder: Path, bucket: str, *, images: int, shard_size: int
) -> dict[str, Counter[str]]:
    """Count the requests of a run's phases; those of the final count are part of `run`."""
    name = f"{images}-{shard_size}"
    source = ObjectStore.open(f"{bucket}/{name}/in")
    for path in write_photos(folder / name, images).iterdir():
        source.put(path.name, path.read_bytes())
    out = f"{bucket}/{name}/out"
    take_requests(proxy)
    plan = plan_photos(source.uri, out, shard_size=shard_size)
    counts = {"plan": take_requests(proxy)}
    run_locally(plan, make_generator=make_threshold_generator)
    counts["run"] = take_requests(proxy)
    again = plan_photos(source.uri, out, shard_size=shard_size)
    again.run_directory.committed(again.stored)
    again.run_directory.read_all_attempts(skip=())
    counts["resume"] = take_requests(proxy)
    return counts


def test_requests_grow_with_images_and_shards_as_documented(
    proxy: FaultyProxy, rclone: S3Server, tmp_path: Path
) -> None:
    bucket = f"s3://{rclone.new_bucket()}"

    def count(*, images: int, shard_size: int) -> dict[str, Counter[str]]:
        return requests_of_a_run(proxy, tmp_path, bucket, images=images, shard_size=shard_size)

    two_shards = count(images=4, shard_size=2)
    more_images = count(images=8, shard_size=4)
    more_shards = count(images=4, shard_size=1)

    for phase in ("plan", "resume"):
        assert two_shards[phase] == more_images[phase] == more_shards[phase]
    for counted in two_shards.values():
        assert counted.total() < 30
    # Each image is one GET, and nothing else.
    assert more_images["run"] - two_shards["run"] == {"GET in/": 4}
    # Each shard is two PUTs, and a GET when its rows are counted in the end.
    assert more_shards["run"] - two_shards["run"] == {
        "PUT masks/": 2,
        "PUT _amg/stats/": 2,
        "GET masks/": 2,
    }
