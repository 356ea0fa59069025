"""Places that derived files are written to."""

from __future__ import annotations

from pathlib import Path

import pytest

from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.storage.destination import Destination
from amg_pipeline.storage.object_store import ObjectStore

PLACES = ["local", "memory"]


@pytest.fixture
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    name = request.node.name.replace("[", "-").replace("]", "")
    return str(tmp_path / "out") if request.param == "local" else f"memory://destination/{name}"


@pytest.mark.parametrize("uri", PLACES, indirect=True)
def test_many_small_objects_are_all_there_at_the_end(uri: str) -> None:
    with Destination.open_folder(uri) as destination:
        for number in range(200):
            destination.put(f"f/{number:03d}", str(number).encode())
    store = ObjectStore.open(uri)

    assert [store.read(info.key) for info in store.list()] == [b"%d" % n for n in range(200)]


@pytest.mark.parametrize("uri", PLACES, indirect=True)
def test_stream_appears_whole_and_after_what_was_put_before(uri: str) -> None:
    store = ObjectStore.open(uri)
    with Destination.open_folder(uri) as destination:
        with destination.stream("index") as file:
            file.write(b"one ")
            destination.put("part", b"x")
            assert not store.exists("index")
            file.write(b"two")
        assert store.read("index") == b"one two"
        assert store.exists("part")


@pytest.mark.parametrize("uri", PLACES, indirect=True)
def test_stream_that_fails_leaves_what_was_there(uri: str) -> None:
    ObjectStore.open(uri).put("index", b"old")

    with Destination.open_folder(uri, overwrite=True) as destination:

        def write() -> None:
            with destination.stream("index") as file:
                file.write(b"new")
                raise KeyError

        with pytest.raises(KeyError):
            write()
    store = ObjectStore.open(uri)
    assert [info.key for info in store.list()] == ["index"]
    assert store.read("index") == b"old"


def test_object_that_cannot_be_written_ends_the_export(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("a file where a folder has to be")

    def write() -> None:
        with Destination.open_folder(str(tmp_path / "out"), overwrite=True) as destination:
            destination.put("a/b", b"x")

    with pytest.raises(StorageError):
        write()


def test_stream_where_no_folder_can_be_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    destination = Destination(ObjectStore.open(str(tmp_path / "file")))

    def write() -> None:
        with destination.stream("index"):
            pass

    with pytest.raises(StorageError, match="must take index"):
        write()


def test_folder_must_be_empty_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")

    with pytest.raises(ConfigError, match="--overwrite"):
        Destination.open_folder(str(tmp_path))
    with pytest.raises(ConfigError, match="must be a folder"):
        Destination.open_folder(str(tmp_path / "x"))
    assert Destination.open_folder(str(tmp_path), overwrite=True).uri == str(tmp_path)


def test_file_must_not_exist_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("")

    with pytest.raises(ConfigError, match="--overwrite"):
        Destination.open_file(str(tmp_path / "x.json"))
    with pytest.raises(ConfigError, match="a folder"):
        Destination.open_file(str(tmp_path), overwrite=True)
    assert Destination.open_file(str(tmp_path / "x.json"), overwrite=True)[1] == "x.json"
