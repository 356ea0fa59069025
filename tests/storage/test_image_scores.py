"""Scores of a run without its masks, and the masks of some images from their places."""

from __future__ import annotations

from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest

from amg_pipeline.errors import StorageError
from amg_pipeline.storage import image_scores
from amg_pipeline.storage.image_masks import read_image_masks
from amg_pipeline.storage.image_scores import RowPlace, read_image_scores, read_images_at
from amg_pipeline.storage.mask_table import load_masks
from tests.export.stored_runs import BROKEN, write_run


@pytest.fixture(scope="module")
def run_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))


@pytest.mark.parametrize("batch_rows", [1, 4096])
def test_scores_are_those_of_the_rows(
    run_output: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr(image_scores, "_BATCH_ROWS", batch_rows)
    dataset = load_masks(str(run_output))

    found = list(read_image_scores(dataset))

    for scores, image in zip(found, read_image_masks(dataset), strict=True):
        assert (scores.image_id, scores.status) == (image.image_id, image.status)
        assert (scores.width, scores.height, len(scores)) == (
            image.width,
            image.height,
            len(image),
        )
        assert scores.area.tolist() == image.area.tolist()
        np.testing.assert_array_equal(scores.predicted_iou, image.predicted_iou)
        np.testing.assert_array_equal(scores.stability_score, image.stability_score)
    [failed] = [scores for scores in found if scores.status != "ok"]
    assert (failed.image_id, failed.error_type) == (BROKEN, "ImageDecodeError")
    assert failed.error_message


def test_run_lengths_are_not_read(run_output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    read = pq.ParquetFile.iter_batches

    def note(self: pq.ParquetFile, *args: object, columns: list[str], **options: object) -> object:
        asked.extend(columns)
        return read(self, *args, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", note)
    list(read_image_scores(load_masks(str(run_output))))

    assert asked
    assert not [name for name in asked if "counts" in name or name == "masks"]


@pytest.mark.parametrize("row_group", [1, 2, 100])
def test_images_come_from_their_places(tmp_path: Path, row_group: int) -> None:
    output = write_run(tmp_path)
    for path in (output / "masks").iterdir():
        pq.write_table(pq.read_table(path), path, row_group_size=row_group)
    dataset = load_masks(str(output))
    places = {scores.place: scores.image_id for scores in read_image_scores(dataset)}
    everything = {image.image_id: image for image in read_image_masks(dataset)}

    wanted = list(places)[::-2]
    found = dict(read_images_at(dataset, [*wanted, wanted[0]]))

    assert set(found) == set(wanted)
    for place, image in found.items():
        assert image.image_id == places[place]
        assert image.counts == everything[image.image_id].counts


def test_run_on_a_store(run_output: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{run_output}/", "/scores/", recursive=True)
    dataset = load_masks("memory://scores")
    here = [scores.image_id for scores in read_image_scores(load_masks(str(run_output)))]

    found = [(scores.image_id, scores.place) for scores in read_image_scores(dataset)]
    [(_, image)] = read_images_at(dataset, [found[-1][1]])

    assert [image_id for image_id, _ in found] == here
    assert image.image_id == here[-1]
    memory.rm("/scores", recursive=True)


def test_row_that_is_gone_is_a_storage_error(run_output: Path) -> None:
    with pytest.raises(StorageError, match="without row 99"):
        list(read_images_at(load_masks(str(run_output)), [RowPlace(0, 99)]))


def test_damaged_shard_is_a_storage_error(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    first = min((output / "masks").iterdir())
    first.write_bytes(first.read_bytes()[:100])
    dataset = load_masks(str(output))

    with pytest.raises(StorageError, match="amg verify"):
        list(read_image_scores(dataset))
    with pytest.raises(StorageError, match="amg verify"):
        list(read_images_at(dataset, [RowPlace(0, 0)]))
