from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from amg_pipeline.errors import ConfigError
from amg_pipeline.training.sources.coco import read_coco

WIDTH, HEIGHT = 80, 60
#: Columns 10 to 30, rows 5 to 25.
SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]


def coco(**changes: Any) -> dict[str, Any]:
    """Annotations of one photo with a polygon and a run-length encoding."""
    circle = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    circle[40:50, 60:75] = 1
    rle = coco_mask.encode(circle)
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {"id": 1, "image_id": 7, "iscrowd": 0, "segmentation": [SQUARE]},
            {
                "id": 2,
                "image_id": 7,
                "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
            },
            {"id": 3, "image_id": 7, "iscrowd": 1, "segmentation": [SQUARE]},
            {"id": 4, "image_id": 7, "iscrowd": 0, "segmentation": [[1, 2, 3, 4]]},
        ],
        **changes,
    }


def write(folder: Path, content: Any) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    pixels = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    pixels[5:25, 10:30] = 200
    Image.fromarray(pixels).save(folder / "images" / "a.png")
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "instances.json").write_text(text)
    return folder


def test_polygons_and_run_lengths_become_masks(tmp_path: Path) -> None:
    (photo,) = read_coco(write(tmp_path, coco()))
    image, masks = photo.read(1000)
    assert image.shape == (HEIGHT, WIDTH, 3)
    # The crowd, and the polygon of two points, are left out.
    assert masks.shape == (2, HEIGHT, WIDTH)
    np.testing.assert_array_equal(masks[0], image[..., 0] == 200)
    assert masks[1].sum() == 150
    assert masks[1, 40:50, 60:75].all()


def test_large_photos_are_shrunk_with_their_masks(tmp_path: Path) -> None:
    (photo,) = read_coco(write(tmp_path, coco()))
    image, masks = photo.read(40)
    assert image.shape == (30, 40, 3)
    bright = image[..., 0] > 115
    assert (bright != masks[0]).sum() <= 20
    assert masks[0].any()


def test_a_photo_may_have_no_masks(tmp_path: Path) -> None:
    (photo,) = read_coco(write(tmp_path, coco(annotations=[])))
    assert photo.read(64)[1].shape == (0, 48, 64)


def image_of(**changes: Any) -> list[dict[str, Any]]:
    return [{**coco()["images"][0], **changes}]


def annotation_of(**changes: Any) -> list[dict[str, Any]]:
    return [{**coco()["annotations"][0], **changes}]


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[" * 100_000,
        "[]",
        {"images": []},
        coco(images=image_of(file_name="../../secret.png")),
        coco(images=image_of(file_name="/etc/passwd")),
        coco(images=image_of(height=0)),
        coco(images=image_of(width=10**9)),
        coco(images=image_of(height="many")),
        coco(images=[7]),
        coco(annotations=annotation_of(image_id=8)),
        coco(annotations=annotation_of(segmentation=[[1, 2, 3, 4, 5, "x"]])),
        coco(annotations=annotation_of(segmentation=[[1, 2, 3, 4, 5, float("nan")]])),
        coco(annotations=annotation_of(segmentation={"counts": "xyz"})),
        coco(annotations=annotation_of(segmentation=7)),
        coco(annotations=[{"segmentation": []}]),
    ],
)
def test_broken_annotations_are_refused_by_name(tmp_path: Path, content: Any) -> None:
    write(tmp_path, content)
    with pytest.raises(ConfigError, match=r"instances\.json"):
        read_coco(tmp_path)


def test_a_folder_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="COCO's format"):
        read_coco(tmp_path / "nowhere")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    Image.new("RGB", (WIDTH, HEIGHT)).save(outside)
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, coco())
    (folder / "images" / "a.png").unlink()
    (folder / "images" / "a.png").symlink_to(outside)
    with pytest.raises(ConfigError, match="outside"):
        read_coco(folder)


@pytest.mark.parametrize("damage", ["missing", "text", "other size"])
def test_images_that_are_not_what_was_announced_are_refused(tmp_path: Path, damage: str) -> None:
    (photo,) = read_coco(write(tmp_path, coco()))
    if damage == "missing":
        photo.path.unlink()
    elif damage == "text":
        photo.path.write_text("no image")
    else:
        Image.new("RGB", (WIDTH, HEIGHT + 1)).save(photo.path)
    with pytest.raises(ConfigError, match=r"a\.png"):
        photo.read(64)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [HEIGHT, WIDTH + 1], "counts": [HEIGHT * (WIDTH + 1)]},
        {"size": [HEIGHT, WIDTH], "counts": [3, "x"]},
        {"size": [HEIGHT, WIDTH], "counts": [10**12]},
        {"size": [HEIGHT, WIDTH], "counts": [5, 7]},
    ],
)
def test_run_lengths_that_are_no_mask_of_the_image_are_refused(
    tmp_path: Path, segmentation: dict[str, Any]
) -> None:
    write(tmp_path, coco(annotations=annotation_of(segmentation=segmentation)))

    def read() -> None:
        (photo,) = read_coco(tmp_path)
        photo.read(64)

    with pytest.raises(ConfigError, match=r"instances\.json"):
        read()


def test_crowds_are_masks_if_asked_for(tmp_path: Path) -> None:
    (photo,) = read_coco(write(tmp_path, coco()), crowd="take")
    masks = photo.read(1000)[1]
    assert len(masks) == 3
    np.testing.assert_array_equal(masks[0], masks[2])


def test_annotations_and_images_may_lie_apart(tmp_path: Path) -> None:
    write(tmp_path, coco())
    (tmp_path / "annotations").mkdir()
    file = (tmp_path / "instances.json").rename(tmp_path / "annotations" / "train2017.json")
    (photo,) = read_coco(file, tmp_path / "images")
    assert (photo.name, photo.read(1000)[1].shape[0]) == ("a.png", 2)


def test_uncompressed_run_lengths_are_masks(tmp_path: Path) -> None:
    runs = {"size": [HEIGHT, WIDTH], "counts": [HEIGHT, HEIGHT, HEIGHT * (WIDTH - 2)]}
    write(tmp_path, coco(annotations=annotation_of(segmentation=runs)))
    (mask,) = read_coco(tmp_path)[0].read(1000)[1]
    assert mask[:, 1].all()
    assert mask.sum() == HEIGHT


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one id"):
        read_coco(write(tmp_path, coco(images=image_of() * 2)))


def test_masks_keep_their_place_when_photos_are_shrunk(tmp_path: Path) -> None:
    """A mask is sampled at the centres of the new pixels, without a shift to any side."""
    write(tmp_path, coco())
    _, masks = read_coco(tmp_path)[0].read(WIDTH // 4)
    rows, columns = np.nonzero(masks[0])
    assert abs(rows.mean() * 4 + 1.5 - 14.5) <= 2
    assert abs(columns.mean() * 4 + 1.5 - 19.5) <= 2
