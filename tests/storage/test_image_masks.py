"""Rows of a run as columns, one image at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.image_masks import read_image_ids, read_image_masks
from amg_pipeline.storage.mask_table import load_masks
from tests.export.stored_runs import BROKEN, IMAGES, write_run


@pytest.fixture(scope="module")
def run_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))


@pytest.mark.parametrize("batch_rows", [1, 64])
def test_columns_are_those_of_the_rows(
    run_output: Path, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr("amg_pipeline.storage.image_masks._BATCH_ROWS", batch_rows)
    dataset = load_masks(str(run_output))
    found = list(read_image_masks(dataset))
    rows = dataset.to_table().to_pylist()

    assert [image.image_id for image in found] == sorted([*IMAGES, BROKEN])
    for image, row in zip(found, rows, strict=True):
        assert (image.uri, image.status) == (row["uri"], row["status"])
        assert (image.width, image.height) == (row["width"] or 0, row["height"] or 0)
        assert len(image) == row["num_masks"]
        for index, mask in enumerate(row["masks"]):
            assert image.counts[index] == mask["counts"]
            assert image.bbox_xywh[index].tolist() == mask["bbox"]
            assert image.area[index] == mask["area"]
            assert image.predicted_iou[index] == np.float32(mask["predicted_iou"])
            assert image.stability_score[index] == np.float32(mask["stability_score"])
            assert image.point_coords[index].tolist() == mask["point_coords"]
            assert image.crop_box_xywh[index].tolist() == mask["crop_box"]


def test_ids_come_with_their_status(run_output: Path) -> None:
    found = dict(read_image_ids(load_masks(str(run_output))))

    assert found.pop(BROKEN) == "decode_error"
    assert found == dict.fromkeys(IMAGES, "ok")


def test_damaged_shard_is_a_storage_error(tmp_path: Path) -> None:
    output = write_run(tmp_path)
    [first, *_] = sorted((output / "masks").iterdir())
    first.write_bytes(first.read_bytes()[:100])

    with pytest.raises(StorageError, match="amg verify"):
        list(read_image_masks(load_masks(str(output))))
