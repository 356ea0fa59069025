"""Images of a run by number."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.storage import run_images
from amg_pipeline.storage.image_masks import read_image_masks
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.storage.run_images import RunImages
from tests.export.stored_runs import IMAGES, write_run

IDS = sorted([*IMAGES, "broken.png"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def with_a_gap(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three shards of two, the one in the middle is not done."""
    output = write_run(tmp_path_factory.mktemp("gap"))
    sorted((output / "masks").iterdir())[1].unlink()
    return output


def ids(images: RunImages) -> list[str]:
    return [images.read(number).image_id for number in range(len(images))]


def test_images_come_in_the_order_of_the_plan_with_all_they_have(whole: Path) -> None:
    images = RunImages.open(str(whole))
    stored = list(read_image_masks(load_masks(str(whole))))

    assert ids(images) == IDS
    for number, image in enumerate(stored):
        found = images.read(number)
        assert found.counts == image.counts
        assert found.area.tolist() == image.area.tolist()


def test_numbers_and_rows_are_inverse_around_shards_that_are_not_done(with_a_gap: Path) -> None:
    images = RunImages.open(str(with_a_gap))

    assert ids(images) == [IDS[0], IDS[1], IDS[4], IDS[5]]
    rows = [images.row_of(number) for number in range(4)]
    assert rows == [0, 1, 4, 5]
    assert [images.number_of(row) for row in range(-1, 7)] == [None, 0, 1, None, None, 2, 3, None]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        (("b/*",), ["b/c d.png", "b/c d.webp"]),
        (("*.webp", "a*"), ["a.png", "b/c d.webp"]),
        (("nothing",), []),
    ],
)
def test_globs_choose(whole: Path, globs: tuple[str, ...], expected: list[str]) -> None:
    images = RunImages.open(str(whole), globs=globs)

    assert ids(images) == expected
    assert [images.number_of(IDS.index(image_id)) for image_id in expected] == list(
        range(len(expected))
    )
    assert images.number_of(IDS.index("empty.png")) is None


def test_globs_leave_out_what_is_not_done(with_a_gap: Path) -> None:
    images = RunImages.open(str(with_a_gap), globs=("*.png",))

    assert ids(images) == [i for i in (IDS[0], IDS[1], IDS[4], IDS[5]) if i.endswith(".png")]


def test_search_is_of_plain_text_in_any_case_and_ends(whole: Path) -> None:
    images = RunImages.open(str(whole))

    assert [image_id for _, image_id in images.find("PNG", limit=2)] == IDS[:2]
    assert images.find("GROSSE", limit=5) == []
    assert [image_id for _, image_id in images.find("%20#", limit=5)] == ["große%20#1.png"]


@pytest.mark.parametrize("number", [-1, 6, 10**30])
def test_number_out_of_range_is_refused(whole: Path, number: int) -> None:
    with pytest.raises(IndexError):
        RunImages.open(str(whole)).read(number)


def test_nothing_of_the_shards_is_read_before_it_is_asked_for(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    read = pq.ParquetFile

    def note(file: object, **options: object) -> object:
        opened.append(file)
        return read(file, **options)

    monkeypatch.setattr(run_images.pq, "ParquetFile", note)
    images = RunImages.open(str(whole))

    assert (len(images), opened) == (6, [])
    images.read(0)
    images.read(1)
    assert len(opened) == 1


def test_no_run_and_damaged_shards_are_errors(with_a_gap: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        RunImages.open(str(tmp_path))
    images = RunImages.open(str(with_a_gap))
    shard = max((with_a_gap / "masks").iterdir())
    data = shard.read_bytes()
    shard.write_bytes(data[:100])
    try:
        with pytest.raises(StorageError, match="amg verify"):
            images.read(3)
    finally:
        shard.write_bytes(data)


def test_run_on_a_store_is_read_the_same_way(whole: Path, tmp_path: Path) -> None:
    from amg_pipeline.storage.object_store import ObjectStore

    store = ObjectStore.open(f"memory://images-{tmp_path.name}")
    for path in whole.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(whole).as_posix(), path.read_bytes())

    assert ids(RunImages.open(store.uri)) == IDS
