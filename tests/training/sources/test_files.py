"""The other formats, with files as people and other programs leave them."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.amg.rle import encode_mask, rle_to_coco, rle_to_uncompressed
from amg_pipeline.errors import ConfigError
from amg_pipeline.training.sources import read_source

HEIGHT, WIDTH = 40, 60
MASK = np.zeros((HEIGHT, WIDTH), bool)
MASK[5:25, 10:30] = True
OTHER = np.zeros((HEIGHT, WIDTH), bool)
OTHER[15:35, 20:50] = True  # overlaps


def save(path: Path, array: NDArray[Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def save_photo(path: Path, **options: Any) -> NDArray[np.uint8]:
    pixels = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    pixels[MASK] = 200
    save(path, pixels, **options)
    return pixels


def sa1b(**changes: Any) -> dict[str, Any]:
    masks = [rle_to_coco(encode_mask(MASK)), rle_to_uncompressed(encode_mask(OTHER))]
    return {
        "image": {"image_id": 1, "width": WIDTH, "height": HEIGHT, "file_name": "a.png"},
        "annotations": [{"id": i, "segmentation": mask} for i, mask in enumerate(masks)],
        **changes,
    }


def labelme(*shapes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "version": "5.5.0",
        "shapes": list(shapes),
        "imagePath": "a.png",
        "imageData": None,
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        **changes,
    }


def write_json(folder: Path, content: Any, name: str = "a.json") -> Path:
    save_photo(folder / "a.png")
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text)
    return folder


def test_sa1b_has_masks_that_overlap(tmp_path: Path) -> None:
    (image,) = read_source("sa1b", write_json(tmp_path, sa1b()))
    pixels, masks = image.read(1000)
    np.testing.assert_array_equal(masks, [MASK, OTHER])
    assert (image.height, image.width, image.name) == (HEIGHT, WIDTH, "a.json")
    assert (pixels[MASK] == 200).all()
    assert image.read(30)[1].shape == (2, 20, 30)


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[" * 100_000,
        "[]",
        {},
        sa1b(image={"file_name": "a.png", "width": 10**9, "height": 2}),
        sa1b(image={"file_name": "../a.png", "width": WIDTH, "height": HEIGHT}),
        sa1b(image={"file_name": "/etc/passwd", "width": WIDTH, "height": HEIGHT}),
        sa1b(image={"file_name": "a.png", "width": HEIGHT, "height": WIDTH}),
        sa1b(image={"file_name": "b.png", "width": WIDTH, "height": HEIGHT}),
        sa1b(annotations=None),
        sa1b(annotations=[{"segmentation": {"size": [1, 1], "counts": [1]}}]),
        sa1b(annotations=[{"segmentation": {"size": [HEIGHT, WIDTH], "counts": "~~"}}]),
        sa1b(annotations=[{"segmentation": {"size": [HEIGHT, WIDTH], "counts": [1, -1]}}]),
    ],
)
def test_broken_sa1b_files_are_refused_by_name(tmp_path: Path, content: Any) -> None:
    (image,) = read_source("sa1b", write_json(tmp_path, content))
    with pytest.raises(ConfigError, match=r"a\.json"):
        image.read(64)


def test_labelme_shapes_become_masks(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(OTHER[15:35, 20:50]).save(picture, "PNG")
    shapes = (
        {"points": [[10, 5], [29, 5], [29, 24], [10, 24]], "shape_type": "polygon"},
        {
            "points": [[20, 15], [49, 34]],
            "shape_type": "mask",
            "mask": base64.b64encode(picture.getvalue()).decode(),
        },
        {"points": [[29, 24], [10, 5]], "shape_type": "rectangle", "group_id": 4},
        {"points": [[50, 5], [50, 8]], "shape_type": "circle", "group_id": 4},
        {"points": [[1, 1]], "shape_type": "point"},
        {"points": [[1, 1], [5, 5]], "shape_type": "linestrip"},
    )
    (image,) = read_source("labelme", write_json(tmp_path, labelme(*shapes)))
    _, (polygon, mask, grouped) = image.read(1000)
    np.testing.assert_array_equal(polygon, MASK)
    np.testing.assert_array_equal(mask, OTHER)
    assert grouped[MASK].all()
    assert grouped[5, 50]
    assert (grouped & ~MASK).sum() == pytest.approx(np.pi * 9, rel=0.4)


def test_labelme_may_hold_the_image_itself(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (1, 2, 3)).save(data, "PNG")
    text = base64.b64encode(data.getvalue()).decode()
    (image,) = read_source("labelme", write_json(tmp_path, labelme(imageData=text)))
    pixels, masks = image.read(1000)
    assert (pixels == (1, 2, 3)).all()
    assert masks.shape == (0, HEIGHT, WIDTH)


POLYGON = {"points": [[1, 1], [9, 1], [9, 9]], "shape_type": "polygon"}


@pytest.mark.parametrize(
    "content",
    [
        labelme(imageWidth=None),
        labelme(imagePath="../../etc/passwd"),
        labelme(imageData="?"),
        labelme(imageData=base64.b64encode(b"no image").decode()),
        labelme({**POLYGON, "points": [[1, "x"]]}),
        labelme({**POLYGON, "points": [[float("nan"), 1], [2, 3], [4, 5]]}),
        labelme({"points": [[1, 1], [5, 5]], "shape_type": "mask", "mask": "eA=="}),
        labelme({"points": [[1, 1]], "shape_type": "rectangle"}),
        labelme({**POLYGON, "group_id": []}),
    ],
)
def test_broken_labelme_files_are_refused_by_name(tmp_path: Path, content: Any) -> None:
    (image,) = read_source("labelme", write_json(tmp_path, content))
    with pytest.raises(ConfigError, match=r"a\.(json|png)|passwd"):
        image.read(64)


def test_a_corner_far_away_costs_nothing(tmp_path: Path) -> None:
    far = {"points": [[-1e30, -1e30], [1e30, -1e30], [1e30, 1e30], [-1e30, 1e30]]}
    (image,) = read_source("labelme", write_json(tmp_path, labelme(far)))
    assert image.read(64)[1].all()


LABELS = np.zeros((HEIGHT, WIDTH), np.uint16)
LABELS[MASK] = 300
LABELS[OTHER] = 7


@pytest.mark.parametrize(
    ("labels", "options", "void"),
    [
        pytest.param(LABELS, {}, (), id="16 bits"),
        pytest.param((LABELS % 256).astype(np.uint8), {}, (), id="8 bits"),
        pytest.param(
            np.where(LABELS == 0, 255, LABELS % 255).astype(np.uint8), {}, (255,), id="void"
        ),
        pytest.param(LABELS.astype(np.int32), {}, (), id="32 bits"),
    ],
)
def test_label_maps_of_all_depths(
    tmp_path: Path, labels: NDArray[Any], options: dict[str, Any], void: tuple[int, ...]
) -> None:
    save_photo(tmp_path / "images" / "in" / "a.jpg")
    save(tmp_path / "labels" / "in" / "a.tif", labels, **options)
    (image,) = read_source("label-maps", tmp_path, void=void)
    assert (image.height, image.width, image.name) == (HEIGHT, WIDTH, "in/a.tif")
    _, masks = image.read(1000)
    found = {int(mask.sum()) for mask in masks}
    assert found == {int(OTHER.sum()), int((MASK & ~OTHER).sum())}


def test_palette_colours_are_numbers(tmp_path: Path) -> None:
    save_photo(tmp_path / "images" / "a.png")
    picture = Image.fromarray((LABELS % 256).astype(np.uint8)).convert("P")
    picture.putpalette([1, 2, 3] * 256)
    (tmp_path / "labels").mkdir()
    picture.save(tmp_path / "labels" / "a.png")
    (image,) = read_source("label-maps", tmp_path)
    assert len(image.read(1000)[1]) == 2


def test_colours_are_masks_and_black_is_none(tmp_path: Path) -> None:
    save_photo(tmp_path / "images" / "a.png")
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[MASK] = (0, 0, 9)
    colours[OTHER] = (9, 0, 0)
    colours[0] = (224, 224, 192)
    save(tmp_path / "labels" / "a.png", colours)
    (image,) = read_source("label-maps", tmp_path, void=(0xE0E0C0,))
    np.testing.assert_array_equal(image.read(1000)[1], [MASK & ~OTHER, OTHER])


@pytest.mark.parametrize("damage", ["photo", "no image", "two images", "other size", "text"])
def test_label_maps_that_do_not_fit_are_refused(tmp_path: Path, damage: str) -> None:
    save_photo(tmp_path / "images" / "a.png")
    save(tmp_path / "labels" / "a.png", LABELS)
    if damage == "photo":
        noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
        save(tmp_path / "labels" / "a.png", noise)
    elif damage == "no image":
        (tmp_path / "images" / "a.png").rename(tmp_path / "images" / "b.png")
    elif damage == "two images":
        save_photo(tmp_path / "images" / "a.jpg")
    elif damage == "other size":
        save(tmp_path / "labels" / "a.png", LABELS.T)
    else:
        (tmp_path / "labels" / "a.png").write_text("text")
    with pytest.raises(ConfigError, match=r"a\.png"):
        read_source("label-maps", tmp_path)[0].read(64)


def test_an_index_that_leads_out_of_the_images_is_refused(tmp_path: Path) -> None:
    save_photo(tmp_path / "images" / "a.png")
    save(tmp_path / "labels" / "a.png", LABELS)
    line = {"labels": "labels/a.png", "image_id": "../../secret.png"}
    (tmp_path / "instances.jsonl").write_text(json.dumps(line))
    with pytest.raises(ConfigError, match="outside"):
        read_source("label-maps", tmp_path)


def bowl(folder: Path) -> Path:
    for name in ("x1", "x2"):
        save_photo(folder / name / "images" / f"{name}.png")
        save(folder / name / "masks" / "1.png", MASK)
        save(folder / name / "masks" / "2.png", OTHER.astype(np.uint8) * 255)
    return folder


def side_by_side(folder: Path) -> Path:
    for name in ("x1", "x2"):
        save_photo(folder / "images" / f"{name}.png")
        save(folder / "masks" / name / "1.png", MASK)
        save(folder / "masks" / name / "2.png", OTHER)
    return folder


@pytest.mark.parametrize("write", [bowl, side_by_side])
def test_folders_of_masks(tmp_path: Path, write: Callable[[Path], Path]) -> None:
    images = read_source("mask-folders", write(tmp_path))
    assert [image.name.removesuffix(".png") for image in images] == ["x1", "x2"]
    for image in images:
        np.testing.assert_array_equal(image.read(1000)[1], [MASK, OTHER])
        assert (image.height, image.width) == (HEIGHT, WIDTH)


def test_masks_may_be_pictures_in_colour(tmp_path: Path) -> None:
    save_photo(tmp_path / "images" / "x.png")
    save(tmp_path / "masks" / "x" / "1.png", np.where(MASK[..., None], [0, 0, 255], 0).astype("u1"))
    (image,) = read_source("mask-folders", tmp_path)
    np.testing.assert_array_equal(image.read(1000)[1], [MASK])


def test_an_image_without_a_folder_of_masks_has_none(tmp_path: Path) -> None:
    side_by_side(tmp_path)
    save_photo(tmp_path / "images" / "y.png")
    assert read_source("mask-folders", tmp_path)[2].read(30)[1].shape == (0, 20, 30)


@pytest.mark.parametrize("damage", ["other size", "two images", "no folder", "link"])
def test_folders_of_masks_that_do_not_fit_are_refused(tmp_path: Path, damage: str) -> None:
    folder = bowl(tmp_path / "data")
    if damage == "other size":
        save(folder / "x1" / "masks" / "1.png", MASK.T)
    elif damage == "two images":
        save_photo(folder / "x1" / "images" / "b.png")
    elif damage == "no folder":
        folder = tmp_path / "nowhere"
    else:
        outside = save(tmp_path / "outside.png", MASK)
        (folder / "x1" / "masks" / "3.png").symlink_to(outside)
    with pytest.raises(ConfigError, match=r"x1|nowhere"):
        read_source("mask-folders", folder)[0].read(64)


def test_photographs_on_their_side_are_turned_if_their_masks_are(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = save_photo(tmp_path / "images" / "a.png", exif=exif)
    upright = np.rot90(stored, -1)
    save(tmp_path / "labels" / "a.png", np.rot90(LABELS, -1))
    (image,) = read_source("label-maps", tmp_path)
    assert (image.height, image.width) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(image.read(1000)[0], upright)
    save(tmp_path / "labels" / "a.png", LABELS)
    np.testing.assert_array_equal(image.read(1000)[0], stored)


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    folder = write_json(tmp_path, sa1b())
    (folder / "a.png").unlink()
    os.mkfifo(folder / "a.png")
    with pytest.raises(ConfigError, match="no regular file"):
        read_source("sa1b", folder)[0].read(64)
