"""Whole runs on S3: resumed cheaply, by two drivers at once, and through a bad network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline import planning
from amg_pipeline.errors import FingerprintMismatchError
from amg_pipeline.local_runner import run_locally
from amg_pipeline.planning import Plan
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_directory import RunDirectory
from tests.photo_runs import (
    make_threshold_generator,
    plan_photos,
    stored_masks,
    write_photo,
    write_photos,
)
from tests.s3.conftest import UseServer
from tests.s3.faulty_proxy import Fault, FaultyProxy, faulty_proxy
from tests.s3.s3_server import S3Server

pytestmark = pytest.mark.s3

#: Three requests of ten have a fault of some kind.
BAD_DAY: dict[Fault, float] = {
    "slow_down": 0.04,
    "internal_error": 0.04,
    "error_after": 0.04,
    "reset_before": 0.04,
    "reset_after": 0.04,
    "slow_body": 0.02,
    "cut_body": 0.04,
    "short_body": 0.04,
}
#: Faults that a bad day has whatever the dice say, by method and part of the key.
CERTAIN_FAULTS: tuple[tuple[Fault, str, str], ...] = (
    ("cut_body", "GET", ".png"),
    ("short_body", "GET", ".png"),
    ("reset_after", "PUT", "/masks/"),
    ("error_after", "PUT", "/masks/"),
    ("slow_down", "PUT", "/masks/"),
)


def begin_bad_day(proxy: FaultyProxy) -> None:
    """Give `proxy` the random and the certain faults."""
    proxy.rates = BAD_DAY
    for fault, method, contains in CERTAIN_FAULTS:
        proxy.inject(fault, method=method, contains=contains)


def had_a_bad_day(proxy: FaultyProxy) -> bool:
    """Whether each certain fault came."""
    return {fault for fault, _, _ in CERTAIN_FAULTS} <= set(proxy.faults())


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "in", 9)


@pytest.fixture
def proxy(ceph: S3Server, use_server: UseServer) -> Iterator[FaultyProxy]:
    with faulty_proxy(ceph.endpoint, seed=11, slow_s=0.2) as proxy:
        use_server(ceph.through(proxy.endpoint))
        yield proxy


@pytest.fixture(params=["ceph", "rclone"])
def server(request: pytest.FixtureRequest, use_server: UseServer) -> S3Server:
    server: S3Server = request.getfixturevalue(request.param)
    use_server(server)
    return server


def run(plan: Plan) -> None:
    assert run_locally(plan, make_generator=make_threshold_generator).is_settled


def local_masks(photos: object, out: Path, *overrides: str) -> dict[str, bytes]:
    run(plan_photos(photos, out, *overrides))
    return stored_masks(out)


def upload(photos: Path, server: S3Server) -> str:
    bucket = server.new_bucket()
    for photo in sorted(photos.iterdir()):
        server.client().put_object(Bucket=bucket, Key=photo.name, Body=photo.read_bytes())
    return f"s3://{bucket}"


def at_once(actions: list[Callable[[], Any]]) -> list[Any]:
    """Run actions in a thread each; an error is a result, too."""
    start = threading.Barrier(len(actions))

    def act(action: Callable[[], Any]) -> Any:
        start.wait()
        try:
            return action()
        except FingerprintMismatchError as error:
            return error

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(act, actions))


def test_two_drivers_give_what_one_gives(photos: Path, server: S3Server, tmp_path: Path) -> None:
    out = f"s3://{server.new_bucket()}/out"

    def drive() -> Plan:
        plan = plan_photos(photos, out)
        run(plan)
        return plan

    plans = at_once([drive, drive, drive])
    assert plans[0].stored == plans[1].stored == plans[2].stored
    assert stored_masks(out) == local_masks(photos, tmp_path / "alone")
    directory = RunDirectory.open(out)
    assert list(directory.verify(directory.require_plan())) == []


def test_two_drivers_that_list_other_images_agree_on_one_plan(
    photos: Path, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = f"s3://{server.new_bucket()}/out"
    list_images, lock, listed = planning.list_images, threading.Lock(), threading.Barrier(2)
    listings: list[int] = []

    def list_one_more_each_time(settings: Any) -> Any:
        with lock:
            if listings:
                # It sorts before the others, so that each shard has other images.
                write_photo(photos / "0000.png", seed=99)
            images = list_images(settings)
            listings.append(images.num_rows)
        listed.wait(60)
        return images

    def drive() -> Plan:
        plan = plan_photos(photos, out)
        run(plan)
        return plan

    with monkeypatch.context() as patch:
        patch.setattr(planning, "list_images", list_one_more_each_time)
        first, second = at_once([drive, drive])
    assert listings == [9, 10]
    assert first.stored.parts == second.stored.parts
    stored = RunDirectory.open(out).require_plan()
    assert stored.num_images == first.num_images == second.num_images
    if stored.num_images == 9:
        (photos / "0000.png").unlink()
    assert stored_masks(out) == local_masks(photos, tmp_path / "alone")
    assert list(RunDirectory.open(out).verify(stored)) == []


def test_of_two_drivers_with_other_settings_one_is_refused(
    photos: Path, server: S3Server, tmp_path: Path
) -> None:
    out = f"s3://{server.new_bucket()}/out"

    def drive(threshold: str) -> Plan:
        plan = plan_photos(photos, out, f"amg.pred_iou_thresh={threshold}")
        run(plan)
        return plan

    ended = at_once([lambda: drive("0.1"), lambda: drive("0.2")])
    refused = [isinstance(end, FingerprintMismatchError) for end in ended]
    assert sorted(refused) == [False, True]
    assert "amg.pred_iou_thresh" in str(ended[refused.index(True)])
    chosen = ("0.1", "0.2")[refused.index(False)]
    alone = local_masks(photos, tmp_path / "alone", f"amg.pred_iou_thresh={chosen}")
    assert stored_masks(out) == alone


def test_a_resume_costs_one_listing(photos: Path, ceph: S3Server, proxy: FaultyProxy) -> None:
    out = f"s3://{ceph.new_bucket()}/out"
    run(plan_photos(photos, out, shard_size=1))
    proxy.clear()
    plan = plan_photos(photos, out, shard_size=1)
    assert plan.is_resumed
    committed = plan.run_directory.committed(plan.stored)
    assert list(plan.run_directory.shards(plan.stored, skip=committed)) == []
    assert [request.is_list for request in proxy.requests].count(True) == 1
    # The plan, and whether there is a later edition of it; none for any shard.
    assert len(proxy.requests) <= 3


def test_a_bad_network_changes_no_byte(
    photos: Path,
    ceph: S3Server,
    proxy: FaultyProxy,
    no_waits: None,
    tmp_path: Path,
) -> None:
    inputs, out = upload(photos, ceph), f"s3://{ceph.new_bucket()}/out"
    calm = local_masks(inputs, tmp_path / "calm")
    assert not proxy.faults()
    begin_bad_day(proxy)
    plan = plan_photos(inputs, out)
    run(plan)
    assert had_a_bad_day(proxy)
    proxy.calm()
    assert stored_masks(out) == calm
    assert list(plan.run_directory.verify(plan.stored)) == []
    rows = load_masks(out).to_table(columns=["image_id", "status"]).to_pylist()
    assert [row["image_id"] for row in rows] == sorted(path.name for path in photos.iterdir())
    assert {row["status"] for row in rows} == {"ok"}
