"""What storage makes of throttling, resets, stalls and bodies that are cut short."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from amg_pipeline.config import StorageSettings
from amg_pipeline.errors import CommitConflictError, StorageAccessError, TransientStorageError
from amg_pipeline.storage.connections import configure_stores
from amg_pipeline.storage.faults import RetryPolicy
from amg_pipeline.storage.object_store import ObjectStore, find_kind, read_uri
from amg_pipeline.storage.ranged_file import RangedFile
from tests.s3.conftest import UseServer
from tests.s3.faulty_proxy import FAULTS, Fault, FaultyProxy, faulty_proxy
from tests.s3.s3_server import S3Server
from tests.storage.doubles import EAGER

pytestmark = pytest.mark.s3

DATA = bytes(range(256)) * 40
IMPATIENT = StorageSettings(read_timeout_seconds=1.0, request_timeout_seconds=4.0)


@pytest.fixture(scope="module")
def running_proxy(ceph: S3Server) -> Iterator[FaultyProxy]:
    with faulty_proxy(ceph.endpoint, seed=5) as proxy:
        yield proxy


@pytest.fixture
def proxy(ceph: S3Server, use_server: UseServer, running_proxy: FaultyProxy) -> FaultyProxy:
    running_proxy.calm()
    running_proxy.slow_s = 0.3
    use_server(ceph.through(running_proxy.endpoint))
    configure_stores(IMPATIENT)
    return running_proxy


@pytest.fixture
def store(ceph: S3Server, proxy: FaultyProxy) -> ObjectStore:
    store = ObjectStore.open(f"s3://{ceph.new_bucket()}/out", retry=EAGER)
    store.put("d/a", DATA)
    proxy.clear()
    return store


def create_and_tell(store: ObjectStore) -> bytes:
    """As a planner does: after a lost answer, the object that is there may be our own."""
    with suppress(CommitConflictError):
        store.create("plan.json", DATA)
    return store.read("plan.json")


def put_and_read(store: ObjectStore) -> bytes:
    store.put("d/b", DATA)
    return store.read("d/b")


def move_and_list(store: ObjectStore) -> list[str]:
    store.move("d/a", "e/a")
    return [info.key for info in store.list()]


VERBS: dict[str, tuple[Callable[[ObjectStore], Any], Any]] = {
    "read": (lambda store: store.read("d/a"), DATA),
    "read_uri": (lambda store: read_uri(store.uri_of("d/a"), retry=EAGER), DATA),
    "read_range": (
        lambda store: RangedFile(store.uri_of("d/a"), retry=EAGER).read_range(100, 9000),
        DATA[100:9000],
    ),
    "put": (put_and_read, DATA),
    "create": (create_and_tell, DATA),
    "exists": (lambda store: (store.exists("d/a"), store.exists("d/z")), (True, False)),
    "kind": (lambda store: find_kind(f"{store.uri}/d", retry=EAGER), "folder"),
    "list": (lambda store: [info.key for info in store.list()], ["d/a"]),
    "move": (move_and_list, ["e/a"]),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_verb_gets_over_every_fault(
    store: ObjectStore, proxy: FaultyProxy, fault: Fault, verb: str
) -> None:
    act, expected = VERBS[verb]
    proxy.inject(fault, times=2)
    assert act(store) == expected
    # A slow body is no reason to ask again.
    assert proxy.faults()[fault] == 2 or fault == "slow_body"


def test_each_verb_is_one_request(store: ObjectStore, proxy: FaultyProxy) -> None:
    def requests(act: Callable[[], Any]) -> list[str]:
        proxy.clear()
        act()
        return [request.method for request in proxy.requests]

    assert requests(lambda: store.read("d/a")) == ["GET"]
    assert requests(lambda: store.put("d/b", b"1")) == ["PUT"]
    assert requests(lambda: store.exists("d/b")) == ["HEAD"]
    assert requests(lambda: list(store.list())) == ["GET"]
    assert requests(lambda: list(store.list("nothing/"))) == ["GET"]
    assert requests(lambda: store.move("d/b", "d/c")) == ["PUT", "DELETE"]
    # The store is probed once, and by writers of new plans only.
    assert requests(lambda: store.create("plan.json", b"")) == ["PUT", "PUT", "DELETE", "PUT"]
    assert requests(lambda: store.create("other.json", b"")) == ["PUT"]


@pytest.mark.parametrize("fault", ["slow_down", "internal_error", "reset_before", "short_body"])
def test_retries_are_bounded_and_not_multiplied(
    store: ObjectStore, proxy: FaultyProxy, no_waits: None, fault: Fault
) -> None:
    patient = ObjectStore.open(store.uri)
    proxy.inject(fault, method="GET", times=1000)
    with pytest.raises(TransientStorageError, match="Read d/a"):
        patient.read("d/a")
    attempts = RetryPolicy().attempts
    # aiohttp repeats a request itself where the connection was one that it had used before; and
    # what looks cut short is looked up.
    expected = {"reset_before": (attempts, 2 * attempts), "short_body": (2 * attempts,) * 2}
    least, most = expected.get(fault, (attempts, attempts))
    assert least <= len(proxy.requests) <= most


def test_a_stalled_server_is_noticed(store: ObjectStore, proxy: FaultyProxy) -> None:
    proxy.inject("stall_before", times=1)
    started = time.monotonic()
    assert store.read("d/a") == DATA
    assert 0.9 < time.monotonic() - started < 6


def test_a_body_that_drips_is_noticed(store: ObjectStore, proxy: FaultyProxy) -> None:
    # A piece every half second: never silent for the second that a read may take.
    configure_stores(StorageSettings(read_timeout_seconds=1.0, request_timeout_seconds=2.0))
    proxy.slow_s = 4.0
    proxy.inject("slow_body", times=1)
    started = time.monotonic()
    assert store.read("d/a") == DATA
    assert 1.9 < time.monotonic() - started < 8
    assert len(proxy.requests) == 2


def test_refusals_are_not_tried_again(
    ceph: S3Server, store: ObjectStore, proxy: FaultyProxy, use_server: UseServer
) -> None:
    missing = ObjectStore.open("s3://no-such-bucket-here/out")
    with pytest.raises(StorageAccessError, match="NoSuchBucket"):
        missing.read("a")
    assert len(proxy.requests) == 1
    proxy.clear()
    use_server(S3Server(proxy.endpoint, ceph.access_key, "not-the-secret-of-anyone"))
    with pytest.raises(StorageAccessError, match="HTTP 403"):
        store.read("d/a")
    assert len(proxy.requests) == 1


def test_a_page_of_a_listing_is_retried_and_not_the_whole(
    ceph: S3Server, store: ObjectStore, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = ceph.new_bucket()
    for number in range(12):
        ceph.client().put_object(Bucket=bucket, Key=f"out/{number:02d}", Body=b"")
    listed = ObjectStore.open(f"s3://{bucket}/out", retry=EAGER)
    call = listed._files._call
    monkeypatch.setattr(
        listed._files,
        "_call",
        lambda operation, **arguments: call(operation, MaxKeys=5, **arguments),
    )
    proxy.inject("slow_down", contains="continuation-token", times=2)
    assert [info.key for info in listed.list()] == [f"{number:02d}" for number in range(12)]
    assert len(proxy.requests) == 3 + 2
