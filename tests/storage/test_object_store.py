from __future__ import annotations

import errno
import os
import pickle
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amg_pipeline.errors import (
    CommitConflictError,
    ConfigError,
    StorageError,
    TransientStorageError,
)
from amg_pipeline.storage import local_files
from amg_pipeline.storage.local_files import Child, LocalFiles
from amg_pipeline.storage.object_store import ObjectInfo, ObjectStore, find_kind, read_uri
from tests.storage.doubles import EAGER, Killed

HOSTILE_NAMES = [
    "with space.jpg",
    "quote'\".jpg",
    "日本語 ñ.jpg",
    "hash#1.jpg",
    "what?.jpg",
    "100%25.jpg",
    "new\nline.jpg",
    "two::colons.jpg",
    "star*[a].jpg",
    "back\\slash.jpg",
    "-rf.jpg",
    "~user.jpg",
    "$HOME.jpg",
]


@pytest.fixture(params=["local", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "store")
        return
    name = f"/store-{uuid4().hex}"
    yield f"memory:/{name}"
    memory = fsspec.filesystem("memory")
    if memory.exists(name):
        memory.rm(name, recursive=True)


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_put_replaces_and_read_returns(uri: str) -> None:
    store = ObjectStore.open(uri)
    store.put("a/b.bin", b"first")
    store.put("a/b.bin", b"second")
    assert store.read("a/b.bin") == b"second"
    assert store.exists("a/b.bin")
    assert not store.exists("a")
    assert not store.exists("a/c.bin")


def test_create_refuses_a_second_time_and_keeps_the_first(uri: str) -> None:
    store = ObjectStore.open(uri)
    store.create("plan.json", b"mine")
    with pytest.raises(CommitConflictError, match=r"plan\.json"):
        store.create("plan.json", b"yours")
    assert store.read("plan.json") == b"mine"
    assert keys(store) == ["plan.json"]


def test_read_of_nothing(uri: str) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        ObjectStore.open(uri).read("absent")


def test_list_of_nothing_is_empty(uri: str) -> None:
    assert keys(ObjectStore.open(uri)) == []
    assert keys(ObjectStore.open(uri), "masks/") == []


def test_list_is_sorted_by_bytes_and_tells_sizes(uri: str) -> None:
    store = ObjectStore.open(uri)
    names = ["a/z", "a.txt", "a-b", "b/c/d", "B", "é", "a/b/c"]
    for name in names:
        store.put(name, name.encode())
    infos = list(store.list())
    assert [info.key for info in infos] == sorted(names, key=str.encode)
    assert all(info.size == len(info.key.encode()) for info in infos)
    assert keys(store, "a/") == ["a/b/c", "a/z"]
    assert keys(store, "a") == ["a/b/c", "a/z"]
    assert [info.key for info in store.list(max_depth=1)] == ["B", "a-b", "a.txt", "é"]


def test_list_sees_what_others_wrote_meanwhile(uri: str) -> None:
    store, other = ObjectStore.open(uri), ObjectStore.open(uri)
    store.put("a", b"1")
    assert keys(store) == ["a"]
    other.put("b", b"2")
    assert keys(store) == ["a", "b"]
    assert store.exists("b")


def test_move(uri: str) -> None:
    store = ObjectStore.open(uri)
    store.put("a", b"1")
    store.move("a", "old/x/a")
    assert keys(store) == ["old/x/a"]
    assert store.read("old/x/a") == b"1"
    with pytest.raises(StorageError, match="a in"):
        store.move("a", "b")


def test_move_is_repeatable_after_a_lost_answer() -> None:
    store = ObjectStore.open(f"memory://{uuid4().hex}")
    store.put("b", b"1")
    store.move("a", "b")
    assert store.read("b") == b"1"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_just_names(uri: str, name: str) -> None:
    store = ObjectStore.open(uri)
    store.put(f"d/{name}", name.encode())
    assert keys(store) == [f"d/{name}"]
    assert store.read(f"d/{name}") == name.encode()
    address = store.uri_of(f"d/{name}")
    assert read_uri(address) == name.encode()
    assert find_kind(address) == "file"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_roots(tmp_path: Path, name: str) -> None:
    store = ObjectStore.open(str(tmp_path / name))
    store.put("a", b"1")
    assert (tmp_path / name / "a").read_bytes() == b"1"
    assert keys(store) == ["a"]


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../outside", "a/../../b"])
def test_keys_stay_inside(tmp_path: Path, key: str) -> None:
    store = ObjectStore.open(str(tmp_path / "in"))
    for verb in (store.read, store.exists):
        with pytest.raises(StorageError, match="relative path"):
            verb(key)
    with pytest.raises(StorageError, match="relative path"):
        store.put(key, b"")


def test_find_kind(uri: str) -> None:
    assert find_kind(uri) is None
    ObjectStore.open(uri).put("a", b"")
    assert find_kind(uri) == "folder"
    assert find_kind(f"{uri}/a") == "file"


def test_unknown_schemes_are_configuration_errors() -> None:
    with pytest.raises(ConfigError, match="scheme"):
        ObjectStore.open("nosuch://bucket/a")


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(scheme: str, **options: object) -> None:
        raise ImportError(scheme)

    monkeypatch.setattr(fsspec, "filesystem", refuse)
    with pytest.raises(ConfigError, match=r"amg_pipeline\[gcs\]"):
        ObjectStore.open("gs://bucket/a")
    with pytest.raises(ConfigError, match="install its fsspec package"):
        ObjectStore.open("hdfs://host/a")


def test_slash_at_the_end_of_a_web_address_is_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Web:
        def _strip_protocol(self, uri: str) -> str:
            return uri

        def cat_file(self, path: str) -> bytes:
            return path.encode()

    monkeypatch.setattr(fsspec, "filesystem", lambda scheme, **options: Web())
    assert read_uri("https://host/photo/7/") == b"https://host/photo/7/"


def test_a_store_travels_between_processes(uri: str) -> None:
    store = ObjectStore.open(uri)
    store.put("a", b"1")
    copy = pickle.loads(pickle.dumps(store))
    assert copy.read("a") == b"1"
    assert copy.uri == uri


def test_markers_of_empty_folders_are_not_listed() -> None:
    store = ObjectStore.open(f"memory://{uuid4().hex}")
    store.put("p/q", b"1")
    memory = fsspec.filesystem("memory")
    memory.mkdir(f"{store.uri.removeprefix('memory:/')}/empty")
    assert keys(store) == ["p/q"]


# Local disk


def test_killed_writer_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore.open(str(tmp_path))
    store.put("masks/part", b"old")

    def die(source: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    # The temporary file stays behind as after SIGKILL, where no clean-up runs.
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        with pytest.raises(KeyboardInterrupt):
            store.put("masks/part", b"new")
    assert len(list((tmp_path / "masks").iterdir())) == 2
    assert store.read("masks/part") == b"old"
    assert keys(store) == ["masks/part"]
    store.sweep("masks/")
    # It might be the write of another process that goes on.
    assert len(list((tmp_path / "masks").iterdir())) == 2
    for path in (tmp_path / "masks").iterdir():
        os.utime(path, (time.time() - 3700,) * 2)
    store.sweep("masks/")
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["part"]
    store.sweep("absent/")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_vanishes_while_a_folder_is_listed_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
    if kind == "folder":
        (tmp_path / "b").unlink()
        (tmp_path / "b").mkdir()
    look = local_files._child

    def vanish(entry: os.DirEntry[str]) -> local_files.Child | None:
        if entry.name == "b":
            Path(entry.path).unlink() if kind == "file" else Path(entry.path).rmdir()
        return look(entry)

    monkeypatch.setattr(local_files, "_child", vanish)
    assert keys(ObjectStore.open(str(tmp_path))) == ["a", "c"]


@pytest.mark.parametrize("target", ["loop", "x" * 300, "a/below-a-file"])
def test_links_that_can_never_be_followed_are_files(tmp_path: Path, target: str) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "loop").symlink_to(target)
    store = ObjectStore.open(str(tmp_path))
    assert list(store.list()) == [ObjectInfo("a", 0), ObjectInfo("loop")]
    with pytest.raises((StorageError, FileNotFoundError)):
        store.read("loop")


def test_link_that_may_be_followed_later_is_not_skipped(tmp_path: Path) -> None:
    class Entry:
        name = "link"

        def is_dir(self) -> bool:
            raise PermissionError(errno.EACCES, "Permission denied")

        def is_symlink(self) -> bool:
            return True

    with pytest.raises(PermissionError):
        local_files._child(Entry())


def test_failed_write_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore.open(str(tmp_path))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        store.put("a", b"1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exists", [False, True])
def test_create_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    store = ObjectStore.open(str(tmp_path))
    if exists:
        store.put("a", b"0")
        with pytest.raises(CommitConflictError):
            store.create("a", b"1")
    else:
        store.create("a", b"1")
    assert store.read("a") == (b"0" if exists else b"1")
    assert keys(store) == ["a"]


def test_create_without_hard_links_is_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at the last instant before the object has its name, there is none."""

    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(Path, "replace", die)
    store = ObjectStore.open(str(tmp_path))
    with pytest.raises(Killed):
        store.create("a", b"1")
    assert keys(store) == []
    monkeypatch.undo()
    monkeypatch.setattr(os, "link", refuse)
    store.create("a", b"2")
    assert store.read("a") == b"2"


def test_of_many_creators_without_hard_links_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)

    def create(number: int) -> bool:
        try:
            ObjectStore.open(str(tmp_path)).create("a", b"%d" % number)
        except CommitConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(create, range(8)))
    assert won.count(True) == 1
    assert ObjectStore.open(str(tmp_path)).read("a") == b"%d" % won.index(True)


def test_create_passes_other_faults_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StorageError, match="Create a"):
        ObjectStore.open(str(tmp_path)).create("a", b"1")


def test_write_below_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        ObjectStore.open(str(tmp_path / "file")).put("a/b", b"1")


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.jpg").write_bytes(b"12")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "sub" / "up").symlink_to(tmp_path / "in" / "sub")
    (tmp_path / "in" / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    infos = list(ObjectStore.open(str(tmp_path / "in")).list())
    assert [(info.key, info.size) for info in infos] == [
        ("again/a.jpg", 2),
        ("dangling.jpg", None),
        ("linked/a.jpg", 2),
    ]


def test_deep_folders_do_not_exhaust_the_stack() -> None:
    class Nested(LocalFiles):
        def children(self, key: str) -> list[Child]:
            return [Child("d", is_folder=key.count("/") < 1500)]

    (info,) = ObjectStore(Nested("")).list()
    assert info.key == "/".join(["d"] * 1502)


def test_pipes_are_neither_listed_nor_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    store = ObjectStore.open(str(tmp_path))
    assert keys(store) == []
    with pytest.raises(StorageError, match="Read pipe"):
        store.read("pipe")


def test_folder_and_zero_byte_names_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="directory"):
        ObjectStore.open(str(tmp_path)).read("folder")
    with pytest.raises(FileNotFoundError):
        read_uri("/a\0b")


def test_unreadable_folder_is_an_error_and_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StorageError, match="permitted"):
        keys(ObjectStore.open(str(tmp_path)))


def test_transient_faults_of_every_verb_are_retried(tmp_path: Path) -> None:
    class Flaky(LocalFiles):
        failures = 2

        def children(self, key: str) -> list:
            self._fail()
            return super().children(key)

        def put(self, key: str, data: bytes) -> None:
            self._fail()
            super().put(key, data)

        def _fail(self) -> None:
            self.failures -= 1
            if self.failures >= 0:
                raise TimeoutError

    flaky = Flaky(str(tmp_path))
    store = ObjectStore(flaky, retry=EAGER)
    store.put("a", b"1")
    flaky.failures = 2
    assert keys(store) == ["a"]
    flaky.failures = 3
    with pytest.raises(TransientStorageError, match="Write a"):
        store.put("a", b"2")


SEGMENT = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(SEGMENT, st.binary(max_size=4), max_size=6))
def test_any_names_round_trip_in_order(
    tmp_path_factory: pytest.TempPathFactory, objects: dict[str, bytes]
) -> None:
    store = ObjectStore.open(str(tmp_path_factory.mktemp("store")))
    for name, data in objects.items():
        store.put(f"d/{name}", data)
    found = keys(store)
    assert found == sorted((f"d/{name}" for name in objects), key=str.encode)
    assert {key: store.read(key) for key in found} == {
        f"d/{name}": data for name, data in objects.items()
    }
