"""What is recorded beside a run about its time."""

from __future__ import annotations

from pathlib import Path

import pytest

from amg_pipeline.report.timings import MOST_NAMED, read_timings
from amg_pipeline.storage.run_directory import RunDirectory


def stats(*slowest: tuple[str, float], elapsed: float = 2.0) -> dict[str, object]:
    return {
        "images": {"ok": 2, "decode_error": 1},
        "elapsed_seconds": elapsed,
        "stage_seconds": {"load": 1.0, "generate": 3.0},
        "slowest_images": [list(entry) for entry in slowest],
    }


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory.open(str(tmp_path))


def test_shards_are_summed(directory: RunDirectory) -> None:
    directory.write_stats(0, stats(("a", 1.0), ("b", 0.5)))
    directory.write_stats(2, stats(("c", 0.7)))

    found = read_timings(directory, range(4))

    assert (found.shards, found.images, found.seconds) == (2, 6, 4.0)
    assert list(found.stage_seconds.items()) == [("generate", 6.0), ("load", 2.0)]
    assert found.slowest == (("a", 1.0), ("c", 0.7), ("b", 0.5))


def test_only_the_slowest_are_kept(directory: RunDirectory) -> None:
    directory.write_stats(0, stats(*((str(number), float(number)) for number in range(99))))

    found = read_timings(directory, [0])

    assert [name for name, _ in found.slowest] == [str(98 - i) for i in range(MOST_NAMED)]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"elapsed_seconds": "x"}', '{"elapsed_seconds": 1}'],
)
def test_malformed_records_say_nothing(directory: RunDirectory, tmp_path: Path, text: str) -> None:
    directory.write_stats(1, stats())
    (tmp_path / "_amg" / "stats" / "000000.json").write_text(text)

    assert read_timings(directory, [0, 1]).shards == 1


def test_records_of_earlier_versions_name_no_images(directory: RunDirectory) -> None:
    record = stats()
    del record["slowest_images"]
    directory.write_stats(0, record)

    found = read_timings(directory, [0])

    assert (found.shards, found.slowest) == (1, ())
