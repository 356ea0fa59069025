"""The store's verbs against real servers."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from amg_pipeline.errors import CommitConflictError, StorageAccessError
from amg_pipeline.storage.object_store import ObjectStore, find_kind, read_uri
from tests.s3.conftest import UseServer
from tests.s3.s3_server import S3Server
from tests.storage.doubles import EAGER

pytestmark = pytest.mark.s3

HOSTILE_NAMES = [
    "with space.jpg",
    "plus+and&.jpg",
    "日本語 ñ.jpg",
    "hash#1.jpg",
    "what?versionId=1.jpg",
    "100%25.jpg",
    "two::colons.jpg",
    "star*[a].jpg",
]


@pytest.fixture(params=["ceph", "rclone"])
def server(request: pytest.FixtureRequest, use_server: UseServer) -> S3Server:
    server: S3Server = request.getfixturevalue(request.param)
    use_server(server)
    return server


@pytest.fixture
def store(server: S3Server) -> ObjectStore:
    return ObjectStore.open(f"s3://{server.new_bucket()}/out", retry=EAGER)


def keys(store: ObjectStore, prefix: str = "", max_depth: int | None = None) -> list[str]:
    return [info.key for info in store.list(prefix, max_depth=max_depth)]


def test_verbs(store: ObjectStore) -> None:
    assert keys(store) == []
    assert not store.exists("a/b.bin")
    with pytest.raises(FileNotFoundError, match="absent"):
        store.read("absent")
    store.put("a/b.bin", b"first")
    store.put("a/b.bin", b"second")
    assert store.read("a/b.bin") == b"second"
    assert store.exists("a/b.bin")
    assert not store.exists("a")
    store.put("empty", b"")
    assert store.read("empty") == b""
    store.move("a/b.bin", "old/x")
    assert keys(store) == ["empty", "old/x"]
    assert store.read("old/x") == b"second"
    assert find_kind(store.uri) == "folder"
    assert find_kind(f"{store.uri}/old/x") == "file"
    assert find_kind(f"{store.uri}/nothing") is None
    assert read_uri(store.uri_of("old/x")) == b"second"


def test_listing_is_in_order_of_bytes_and_to_a_depth(store: ObjectStore) -> None:
    names = ["a/z", "a.txt", "a-b", "b/c/d", "B", "a/b/c"]
    for name in names:
        store.put(name, name.encode())
    infos = list(store.list())
    assert [info.key for info in infos] == sorted(names, key=str.encode)
    assert all(info.size == len(info.key) and info.etag for info in infos)
    assert keys(store, "a/") == ["a/b/c", "a/z"]
    assert keys(store, max_depth=1) == ["B", "a-b", "a.txt"]
    assert keys(store, max_depth=2) == ["B", "a-b", "a.txt", "a/z"]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_just_names(store: ObjectStore, name: str) -> None:
    store.put(f"d/{name}", name.encode())
    assert keys(store) == [f"d/{name}"]
    assert store.exists(f"d/{name}")
    assert store.read(f"d/{name}") == name.encode()
    assert read_uri(store.uri_of(f"d/{name}")) == name.encode()
    store.move(f"d/{name}", f"e/{name}")
    assert keys(store) == [f"e/{name}"]


def test_markers_of_folders_are_no_objects(ceph: S3Server, use_server: UseServer) -> None:
    use_server(ceph)
    bucket = ceph.new_bucket()
    for key in ("photos/", "photos/deep/", "photos/deep/a.jpg"):
        ceph.client().put_object(Bucket=bucket, Key=key, Body=b"")
    assert keys(ObjectStore.open(f"s3://{bucket}/photos")) == ["deep/a.jpg"]
    assert find_kind(f"s3://{bucket}/photos") == "folder"
    assert find_kind(f"s3://{bucket}") == "folder"


def test_create_once(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_settle_s", 0.1)
    store.create("_amg/plan.json", b"mine")
    with pytest.raises(CommitConflictError, match=r"plan\.json"):
        store.create("_amg/plan.json", b"yours")
    assert store.read("_amg/plan.json") == b"mine"
    # Neither probe nor claim is left.
    assert keys(store) == ["_amg/plan.json"]


def test_probe_tells_the_stores_apart(
    ceph: S3Server, rclone: S3Server, use_server: UseServer
) -> None:
    for server, expected in ((ceph, True), (rclone, False)):
        use_server(server)
        store = ObjectStore.open(f"s3://{server.new_bucket()}/out")
        assert store.creates_atomically("_amg/plan/") is expected
        assert keys(store) == []


def test_of_many_creators_one_succeeds(server: S3Server) -> None:
    uri = f"s3://{server.new_bucket()}/out"
    start = threading.Barrier(6)

    def create(number: int) -> bool:
        store = ObjectStore.open(uri)
        store._settle_s = 2.0
        start.wait()
        try:
            store.create("_amg/plan.json", f"plan {number}".encode())
        except CommitConflictError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        created = list(pool.map(create, range(6)))
    assert created.count(True) == 1
    winner = created.index(True)
    assert ObjectStore.open(uri).read("_amg/plan.json") == f"plan {winner}".encode()


def test_pages_of_a_listing_join(ceph: S3Server, use_server: UseServer) -> None:
    use_server(ceph)
    store = ObjectStore.open(f"s3://{ceph.new_bucket()}/out")
    names = [f"masks/part-{number:06d}" for number in range(2345)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b"x"), names))
    assert keys(store, "masks/") == names


def test_missing_bucket_and_wrong_key_end_at_once(
    ceph: S3Server, use_server: UseServer, caplog: pytest.LogCaptureFixture
) -> None:
    use_server(ceph)
    missing = ObjectStore.open("s3://no-such-bucket-here/out")
    for act in (
        lambda: missing.read("a"),
        lambda: missing.put("a", b""),
        lambda: missing.create("a.json", b""),
        lambda: keys(missing),
        lambda: find_kind("s3://no-such-bucket-here/out"),
    ):
        with pytest.raises(StorageAccessError, match="bucket must exist"):
            act()
    bucket = ceph.new_bucket()
    stranger = S3Server(ceph.endpoint, ceph.access_key, "not-the-secret-of-anyone")
    use_server(stranger)
    store = ObjectStore.open(f"s3://{bucket}/out")
    for act in (
        lambda: store.read("a"),
        lambda: store.put("a", b""),
        lambda: store.exists("a"),
        lambda: store.create("a.json", b""),
        lambda: keys(store),
        lambda: find_kind(store.uri),
        lambda: read_uri(store.uri_of("a")),
    ):
        with pytest.raises(StorageAccessError, match="access must be permitted") as caught:
            act()
        assert stranger.secret_key not in str(caught.value)
    assert stranger.secret_key not in caplog.text


def test_threads_share_a_store(ceph: S3Server, use_server: UseServer) -> None:
    use_server(ceph)
    store = ObjectStore.open(f"s3://{ceph.new_bucket()}/out")

    def round_trip(number: int) -> bytes:
        store.put(f"{number}", b"%d" % number)
        return store.read(f"{number}")

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(round_trip, range(100))) == [b"%d" % n for n in range(100)]
    assert len(keys(store)) == 100


def test_a_forked_process_can_go_on(ceph: S3Server, use_server: UseServer) -> None:
    use_server(ceph)
    store = ObjectStore.open(f"s3://{ceph.new_bucket()}/out")
    store.put("parent", b"1")
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=lambda: store.put("child", store.read("parent")))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert keys(store) == ["child", "parent"]
