"""Masks of a run come back the same by each way that leads through a labelling tool."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from amg_pipeline.cli import app
from amg_pipeline.decisions.events import Change, Event, Standing, mask_names, merge_name
from amg_pipeline.decisions.reviewer_log import ReviewerLog
from amg_pipeline.errors import ConfigError
from amg_pipeline.selection import Selection, select
from amg_pipeline.storage.mask_table import load_masks
from amg_pipeline.training.sources import LabelledImage, read_source
from tests.export.stored_runs import (
    BROKEN,
    IMAGES,
    Mask,
    iou,
    required_iou,
    stored_masks,
    write_run,
)

WHOLE = 10_000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("to train on"))


@pytest.fixture
def export(run: Path, tmp_path: Path) -> Callable[..., Path]:
    def write(*arguments: str) -> Path:
        target = tmp_path / "exported"
        command = ["export", arguments[0], str(run), str(target), *arguments[1:]]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        return target

    return write


def stored(run: Path) -> dict[str, list[Mask]]:
    """The masks of each image that has some, by image."""
    found: dict[str, list[Mask]] = {}
    for mask in stored_masks(run):
        found.setdefault(mask.image_id, []).append(mask.mask)
    return found


def photo(run: Path, image_id: str) -> Any:
    with Image.open(run.parent / "photos" / image_id) as image:
        return np.asarray(image.convert("RGB"))


def check_all(run: Path, images: Sequence[LabelledImage], ids: Sequence[str]) -> None:
    """Compare images in the order of `ids`, pixels and masks, exactly."""
    expected = stored(run)
    assert len(images) == len(ids) == len(IMAGES)
    for image, image_id in zip(images, ids, strict=True):
        pixels, masks = image.read(WHOLE)
        assert (image.height, image.width) == IMAGES[image_id]
        np.testing.assert_array_equal(pixels, photo(run, image_id))
        assert masks.shape == (len(expected.get(image_id, [])), *IMAGES[image_id])
        for mask, other in zip(masks, expected.get(image_id, []), strict=True):
            np.testing.assert_array_equal(mask, other)


def test_run_itself(run: Path) -> None:
    images = read_source("run", str(run))
    assert BROKEN not in [image.name for image in images]
    check_all(run, images, [image.name for image in images])
    check_all(run, pickle.loads(pickle.dumps(images)), [image.name for image in images])


def test_run_whose_images_moved(run: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run.parent / "photos", tmp_path / "moved")
    images = read_source("run", str(run), images=moved)
    check_all(run, images, [image.name for image in images])
    (moved / "a.png").unlink()
    with pytest.raises(ConfigError, match=r"a\.png"):
        images[0].read(WHOLE)


def test_run_takes_a_selection_of_masks(run: Path) -> None:
    images = read_source("run", str(run), selection=Selection(top_k=2, images=("a*",)))
    (image,) = images
    _, masks = image.read(WHOLE)
    np.testing.assert_array_equal(masks, stored(run)["a.png"][:2])
    with pytest.raises(ConfigError, match="none that match"):
        read_source("run", str(run), selection=Selection(images=("nothing",)))


def test_run_takes_what_people_accepted(run: Path) -> None:
    rows = {image.image_id: image for image in select(load_masks(str(run)), Selection())}
    names = mask_names(rows["a.png"])
    accepted, rejected = Standing(decision="accepted"), Standing(decision="rejected")
    union = merge_name([names[7], names[9]])
    change = Change(masks={names[2]: accepted, names[3]: rejected}, merges={union: accepted})
    with ReviewerLog.open(str(run), "ada") as log:
        log.record(Event(image_id="a.png", row=0, change=change))

    (image,) = read_source("run", str(run), selection=Selection(reviewed="accepted"))
    _, masks = image.read(WHOLE)
    all_masks = stored(run)["a.png"]
    np.testing.assert_array_equal(masks, [all_masks[2], all_masks[7] | all_masks[9]])
    others = read_source("run", str(run), selection=Selection(reviewed="unrejected"))
    assert len(others) == len(IMAGES)
    by_name = {other.name: other.read(WHOLE)[1] for other in others}
    assert len(by_name["a.png"]) == len(all_masks) - 3 + 1


def test_coco(run: Path, export: Callable[..., Path]) -> None:
    images = read_source("coco", export("coco"), images=run.parent / "photos")
    check_all(run, images, [image.name for image in images])


def test_sa1b(run: Path, export: Callable[..., Path]) -> None:
    images = read_source("sa1b", export("sa1b"), images=run.parent / "photos")
    check_all(run, images, ids_of(images))


def test_labelme_with_masks(run: Path, export: Callable[..., Path]) -> None:
    images = read_source("labelme", export("labelme", "--as", "mask"), run.parent / "photos")
    check_all(run, images, ids_of(images))


def test_labelme_with_polygons(run: Path, export: Callable[..., Path]) -> None:
    images = read_source("labelme", export("labelme"), images=run.parent / "photos")
    plain = {
        (mask.image_id, number)
        for image_id in IMAGES
        for number, mask in enumerate(m for m in stored_masks(run) if m.image_id == image_id)
        if not mask.has_holes
    }
    for image, image_id in zip(images, ids_of(images), strict=True):
        for number, mask in enumerate(image.read(WHOLE)[1]):
            if (image_id, number) in plain:
                expected = stored(run)[image_id][number]
                assert iou(mask, expected) >= required_iou(int(expected.sum()))


def test_label_maps(run: Path, export: Callable[..., Path]) -> None:
    images = read_source("label-maps", export("png"), images=run.parent / "photos")
    assert len(images) == len(IMAGES)
    for image, image_id in zip(images, ids_of(images), strict=True):
        pixels, masks = image.read(WHOLE)
        np.testing.assert_array_equal(pixels, photo(run, image_id))
        seen = visible_parts(stored(run).get(image_id, []))
        assert masks.shape == (len(seen), *IMAGES[image_id])
        for mask, other in zip(masks, seen, strict=True):
            np.testing.assert_array_equal(mask, other)


def visible_parts(masks: Sequence[Mask]) -> list[Mask]:
    """What is left of masks under the smaller ones, and of equals under the first."""
    order = sorted(range(len(masks)), key=lambda i: (masks[i].sum(), i))
    covered = np.zeros_like(masks[0]) if masks else np.zeros((0, 0), bool)
    visible: dict[int, Mask] = {}
    for i in order:
        visible[i] = masks[i] & ~covered
        covered = covered | masks[i]
    return [visible[i] for i in sorted(visible) if visible[i].any()]


def ids_of(images: Sequence[LabelledImage]) -> list[str]:
    """Which image each file is of: of two that differ in their ending, the second keeps it."""
    ids = {image_id.rpartition(".")[0]: image_id for image_id in reversed(IMAGES)}
    ids |= {image_id: image_id for image_id in IMAGES}
    ids |= {key.replace("%", "%25").replace("#", "%23"): value for key, value in ids.items()}
    return [ids[image.name.rpartition(".")[0]] for image in images]
