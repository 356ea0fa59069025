"""Logs that lines are added to: on disk, and on a store that cannot append."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.storage import append_log
from amg_pipeline.storage.append_log import list_logs, open_log, read_log
from amg_pipeline.storage.object_store import ObjectStore

FOLDER = "_amg/reviews/"
NAMES = ["anna", "Jürgen B@home", "..", ".hidden", "a/b", "50%"]


@pytest.fixture(params=["disk", "store"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else f"memory://log-{tmp_path.name}"


def write(uri: str, name: str, *lines: bytes) -> None:
    with open_log(uri, FOLDER, name) as log:
        for line in lines:
            log.append(line)


def read(uri: str, name: str = "anna") -> list[bytes]:
    return list(read_log(uri, FOLDER, name))


def test_lines_come_back_in_order_over_several_writers(uri: str) -> None:
    write(uri, "anna", b"1", b"2")
    write(uri, "anna", b"3")
    write(uri, "bert", b"x")

    assert read(uri) == [b"1", b"2", b"3"]
    assert read(uri, "bert") == [b"x"]
    assert read(uri, "nobody") == []


def test_line_is_there_when_the_call_returns(uri: str) -> None:
    with open_log(uri, FOLDER, "anna") as log:
        log.append(b"1")

        assert read(uri) == [b"1"]


def test_names_of_all_kinds_keep_apart_and_come_back(uri: str) -> None:
    for name in NAMES:
        write(uri, name, name.encode())

    assert list_logs(uri, FOLDER) == sorted(NAMES)
    assert [read(uri, name) for name in NAMES] == [[name.encode()] for name in NAMES]
    keys = [info.key for info in ObjectStore.open(uri).list()]
    assert all(key.startswith(FOLDER) for key in keys)


def test_no_logs_are_no_names(uri: str) -> None:
    assert list_logs(uri, FOLDER) == []


@pytest.mark.parametrize("torn", [b'{"half', b"\x00\x00", b"\xff"])
def test_torn_last_line_costs_nothing_before_and_after_it(tmp_path: Path, torn: bytes) -> None:
    write(str(tmp_path), "anna", b"1", b"2")
    with (tmp_path / FOLDER / "anna.jsonl").open("ab") as file:
        file.write(torn)

    assert read(str(tmp_path)) == [b"1", b"2"]
    write(str(tmp_path), "anna", b"3", b"4")
    assert read(str(tmp_path)) == [b"1", b"2", torn, b"3", b"4"]


def test_killed_writer_leaves_what_it_had_written(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from amg_pipeline.storage.append_log import open_log\n"
        "log = open_log(sys.argv[1], '_amg/reviews/', 'anna')\n"
        "for number in range(5): log.append(b'%d' % number)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], timeout=60)

    assert done.returncode == -9
    assert read(str(tmp_path)) == [b"0", b"1", b"2", b"3", b"4"]
    write(str(tmp_path), "anna", b"5")


def test_second_writer_on_the_same_disk_is_refused(tmp_path: Path) -> None:
    with (
        open_log(str(tmp_path), FOLDER, "anna"),
        pytest.raises(ConfigError, match="choose another name than 'anna'"),
    ):
        open_log(str(tmp_path), FOLDER, "anna")


def test_write_that_was_cut_short_is_an_error_and_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all = os.write

    def write_half(file: int, data: bytes) -> int:
        return write_all(file, data[: len(data) // 2])

    with open_log(str(tmp_path), FOLDER, "anna") as log:
        log.append(b"first")
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write_half)
            with pytest.raises(StorageError, match="Make room"):
                log.append(b"second")
        log.append(b"third")

    assert [line for line in read(str(tmp_path)) if line in (b"first", b"second", b"third")] == [
        b"first",
        b"third",
    ]


def test_segments_end_and_follow_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"memory://segments-{tmp_path.name}"
    monkeypatch.setattr(append_log, "_SEGMENT_BYTES", 10)
    lines = [b"line %02d" % number for number in range(25)]
    write(uri, "anna", *lines)
    write(uri, "anna", b"of another writer")

    assert read(uri) == [*lines, b"of another writer"]
    assert len(list(ObjectStore.open(uri).list(FOLDER))) == 14


def test_two_writers_at_once_on_a_store_lose_nothing(tmp_path: Path) -> None:
    uri = f"memory://two-{tmp_path.name}"
    with open_log(uri, FOLDER, "anna") as one, open_log(uri, FOLDER, "anna") as other:
        for number in range(3):
            one.append(b"one %d" % number)
            other.append(b"other %d" % number)

    assert sorted(read(uri)) == sorted(
        b"%s %d" % (name, number) for name in (b"one", b"other") for number in range(3)
    )


def test_log_of_a_disk_is_read_before_the_segments_of_a_store(tmp_path: Path) -> None:
    uri = f"memory://copied-{tmp_path.name}"
    ObjectStore.open(uri).put(f"{FOLDER}anna.jsonl", b"1\n2\n")
    write(uri, "anna", b"3")

    assert read(uri) == [b"1", b"2", b"3"]
    assert list_logs(uri, FOLDER) == ["anna"]


def test_failed_put_on_a_store_is_as_if_it_had_not_been_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"memory://failing-{tmp_path.name}"

    def fail(self: ObjectStore, key: str, data: bytes) -> None:
        raise StorageError("no")

    with open_log(uri, FOLDER, "anna") as log:
        log.append(b"1")
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStore, "put", fail)
            with pytest.raises(StorageError):
                log.append(b"2")
        log.append(b"3")

    assert read(uri) == [b"1", b"3"]
