from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.amg.rle import decode_mask, encode_mask, rle_to_coco
from amg_pipeline.errors import ConfigError, ImageDecodeError, ImageFetchError
from amg_pipeline.evaluation.annotated import label_map_to_segments
from amg_pipeline.evaluation.bsds import parse_ground_truth
from amg_pipeline.evaluation.datasets import Subset, open_dataset
from amg_pipeline.evaluation.mask_folders import decode_labels
from amg_pipeline.storage.local_files import LocalFiles
from amg_pipeline.training.sources.coco import read_coco

LABELS = np.array([[1, 1, 2, 0], [1, 3, 2, 0], [3, 3, 2, 700]], np.uint16)


def write_photo(path: Path, size: tuple[int, int] = (4, 3)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (9, 9, 9)).save(path)


def ground_truth(*label_maps: NDArray[np.uint16]) -> bytes:
    """A `.mat` as the data set has them: a row of cells, a struct in each."""
    cells = np.empty((1, len(label_maps)), object)
    for i, labels in enumerate(label_maps):
        cells[0, i] = {"Segmentation": labels, "Boundaries": (labels == 2).astype(np.uint8)}
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"groundTruth": cells})
    return buffer.getvalue()


def masks_of(segments: object) -> list[list[list[bool]]]:
    return [decode_mask(segment).tolist() for segment in segments]  # type: ignore[attr-defined]


def test_label_map_is_taken_apart() -> None:
    found = masks_of(label_map_to_segments(LABELS))

    assert found == [(value == LABELS).tolist() for value in (1, 2, 3, 700)]
    assert label_map_to_segments(np.zeros((2, 3), np.uint8)) == ()
    assert masks_of(label_map_to_segments(np.full((2, 3), 5))) == [np.ones((2, 3), bool).tolist()]


def test_bsds_gives_all_annotators_with_their_boundaries(tmp_path: Path) -> None:
    write_photo(tmp_path / "images/12.jpg")
    write_photo(tmp_path / "images/without.jpg")
    (tmp_path / "gt").mkdir()
    (tmp_path / "gt/12.mat").write_bytes(ground_truth(LABELS, np.ones_like(LABELS)))
    (tmp_path / "gt/no_photo.mat").write_bytes(b"")

    (image,) = open_dataset(
        "bsds", images=str(tmp_path / "images"), annotations=str(tmp_path / "gt")
    )
    pixels, annotations = image.read()

    assert image.image_id == "12.jpg"
    assert pixels.shape == (3, 4, 3)
    assert [len(annotation.segments) for annotation in annotations] == [4, 1]
    assert annotations[0].boundaries is not None
    assert annotations[0].boundaries.tolist() == (LABELS == 2).tolist()


@pytest.mark.parametrize("data", [b"", b"no mat file", ground_truth(LABELS)[:200]])
def test_bsds_damaged_file_is_an_error_of_the_image(data: bytes) -> None:
    with pytest.raises(ImageDecodeError, match="groundTruth"):
        parse_ground_truth(data)


def test_mat_of_something_else_is_refused() -> None:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"other": np.zeros(3)})

    with pytest.raises(ImageDecodeError, match="groundTruth"):
        parse_ground_truth(buffer.getvalue())


def png(array: NDArray[np.generic], mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


def test_labels_of_16_bits_palettes_and_colours() -> None:
    colours = np.zeros((1, 3, 3), np.uint8)
    colours[0, 1], colours[0, 2] = (1, 0, 0), (0, 0, 1)
    indices = Image.new("P", (3, 1))
    indices.putpalette(range(48))
    indices.putdata([0, 7, 2])
    palette = io.BytesIO()
    indices.save(palette, "PNG")

    assert decode_labels(png(LABELS)).tolist() == LABELS.tolist()
    assert decode_labels(png(colours)).tolist() == [[0, 65536, 1]]
    assert decode_labels(palette.getvalue()).tolist() == [[0, 7, 2]]
    assert decode_labels(png(colours, "RGBA")).tolist() == [[0, 65536, 1]]
    assert decode_labels(png(np.array([[0, 255]], np.uint8), "1")).tolist() == [[0, 1]]
    assert decode_labels(png(np.array([[0, 90]], np.uint8), "LA")).tolist() == [[0, 90]]
    with pytest.raises(ImageDecodeError, match="PNG"):
        decode_labels(b"GIF89a")


def test_masks_are_label_maps_or_folders(tmp_path: Path) -> None:
    for name in ("a/label map.jpg", "a/folder.JPG", "none.jpg"):
        write_photo(tmp_path / "images" / name)
    masks = tmp_path / "masks"
    (masks / "a/folder").mkdir(parents=True)
    (masks / "a/label map.png").write_bytes(png(LABELS))
    for name, value in (("1", 255), ("0", 1), ("empty", 0)):
        mask = np.full((3, 4), value, np.uint8)
        mask[0, int(name == "0")] = 0
        (masks / f"a/folder/{name}.png").write_bytes(png(mask))

    folder, label_map = open_dataset(
        "masks", images=str(tmp_path / "images"), annotations=str(masks)
    )

    assert folder.image_id == "a/folder.JPG"
    (annotation,) = folder.read()[1]
    assert [segment.area for segment in annotation.segments] == [11, 11]
    assert not decode_mask(annotation.segments[0])[0, 1]  # by name: 0 comes first
    assert len(label_map.read()[1][0].segments) == 4


def coco(tmp_path: Path, **changes: object) -> str:
    square = [[0.0, 0.0, 2.0, 0.0, 2.0, 2.0, 0.0, 2.0]]
    rle = rle_to_coco(encode_mask(LABELS == 2))
    document = {
        "images": [
            {"id": 7, "file_name": "sub/x.png", "width": 4, "height": 3},
            {"id": 8, "file_name": "without.png", "width": 4, "height": 3},
        ],
        "annotations": [
            {"image_id": 7, "segmentation": square},
            {"image_id": 7, "segmentation": rle},
            {"image_id": 7, "segmentation": {"size": [3, 4], "counts": [11, 1]}},
            {"image_id": 7, "segmentation": rle, "iscrowd": 1},
            {"image_id": 7, "segmentation": []},
            {"image_id": 7, "segmentation": [[0.0, 0.0, 2.0, 2.0]]},
        ],
        **changes,
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_coco_polygons_and_run_lengths(tmp_path: Path) -> None:
    write_photo(tmp_path / "sub/x.png")

    (image,) = open_dataset("coco", images=str(tmp_path), annotations=coco(tmp_path))

    assert image.image_id == "sub/x.png"
    assert [segment.area for segment in image.read()[1][0].segments] == [4, 3, 1]


@pytest.mark.parametrize(
    "segmentation",
    [
        pytest.param({"size": [3, 4], "counts": [5]}, id="runs-too-short"),
        pytest.param({"counts": "1"}, id="no-size"),
        pytest.param([[1.0, 2.0, 3.0]], id="odd-corners"),
        pytest.param([["a"] * 6], id="text"),
        pytest.param(3, id="number"),
    ],
)
def test_coco_malformed_segmentation_is_an_error_of_the_image(
    tmp_path: Path, segmentation: object
) -> None:
    write_photo(tmp_path / "sub/x.png")
    path = coco(tmp_path, annotations=[{"image_id": 7, "segmentation": segmentation}])
    (image,) = open_dataset("coco", images=str(tmp_path), annotations=path)

    with pytest.raises(ImageDecodeError, match="segmentation"):
        image.read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"images": None}, "COCO file", id="no-list"),
        pytest.param(
            {"annotations": [{"segmentation": [1]}]}, "without 'image_id'", id="no-image-id"
        ),
        pytest.param(
            {"images": [{"id": 7, "file_name": "../x.png", "width": 4, "height": 3}]},
            "leads out",
            id="name-leads-out",
        ),
        pytest.param(
            {"images": [{"id": 7, "file_name": "x.png", "width": 0, "height": 3}]},
            "size",
            id="no-size",
        ),
        pytest.param({"annotations": []}, "none", id="no-annotations"),
    ],
)
def test_coco_malformed_file_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        open_dataset("coco", images=str(tmp_path), annotations=coco(tmp_path, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": 2 * [{"id": 1, "file_name": "a.png", "width": 4, "height": 3}]}, "one id"),
        ({"annotations": [{"image_id": 9, "segmentation": []}]}, "image 9, which is not listed"),
    ],
)
def test_coco_ids_must_be_clear_for_both_readers(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = coco(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message):
        open_dataset("coco", images=str(tmp_path), annotations=path)
    with pytest.raises(ConfigError, match=message):
        read_coco(path)


def test_boxes_without_masks_are_no_segments(tmp_path: Path) -> None:
    boxes = [{"image_id": 7, "bbox": [0, 0, 2, 2]}]
    path = coco(tmp_path, annotations=boxes)

    with pytest.raises(ConfigError, match="none"):
        open_dataset("coco", images=str(tmp_path / "images"), annotations=path)
    assert [len(image.masks) for image in read_coco(path)] == [0, 0]


def test_a_file_that_may_not_be_read_costs_its_image_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photo(tmp_path / "images/a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_bytes(png(LABELS))
    (image,) = open_dataset(
        "masks", images=str(tmp_path / "images"), annotations=str(tmp_path / "masks")
    )

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(LocalFiles, "read", refuse)
    with pytest.raises(ImageFetchError, match="Permission denied"):
        image.read_annotations()


def test_missing_file_and_unknown_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="where nothing is"):
        open_dataset("coco", images=str(tmp_path), annotations=str(tmp_path / "no.json"))
    with pytest.raises(ConfigError, match="coco, bsds, masks"):
        open_dataset("voc", images="a", annotations="b")
    with pytest.raises(ConfigError, match="none"):
        open_dataset("masks", images=str(tmp_path / "no"), annotations=str(tmp_path / "nor"))


def test_credentials_are_in_no_message(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png")

    with pytest.raises(ConfigError, match="none at memory://empty with") as caught:
        open_dataset("masks", images="memory://key:secret@empty", annotations=str(tmp_path))

    assert "secret" not in str(caught.value)


def test_a_photograph_is_no_label_map(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    for folder in ("images", "masks"):
        write_photo(tmp_path / folder / "a.png")
    (tmp_path / "masks/a.png").write_bytes(png(noise))
    (image,) = open_dataset(
        "masks", images=str(tmp_path / "images"), annotations=str(tmp_path / "masks")
    )

    with pytest.raises(ImageDecodeError, match="as photographs have"):
        image.read()


def test_names_that_differ_in_their_ending_only_are_refused(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png")
    write_photo(tmp_path / "a.jpg")

    with pytest.raises(ConfigError, match="endings"):
        open_dataset("masks", images=str(tmp_path), annotations=str(tmp_path))


def test_other_size_than_the_image_is_an_error_of_the_image(tmp_path: Path) -> None:
    write_photo(tmp_path / "images/a.png", (3, 4))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_bytes(png(LABELS))
    (image,) = open_dataset(
        "masks", images=str(tmp_path / "images"), annotations=str(tmp_path / "masks")
    )

    with pytest.raises(ImageDecodeError, match="exif_orientation"):
        image.read()


def test_subset_is_repeatable_and_independent_of_order(tmp_path: Path) -> None:
    for i in range(9):
        write_photo(tmp_path / f"images/{i}.png")
        (tmp_path / "masks").mkdir(exist_ok=True)
        (tmp_path / f"masks/{i}.png").write_bytes(png(LABELS))

    def ids(**subset: int) -> list[str]:
        images = open_dataset(
            "masks",
            images=str(tmp_path / "images"),
            annotations=str(tmp_path / "masks"),
            subset=Subset(**subset),
        )
        return [image.image_id for image in images]

    assert ids(limit=2) == ["0.png", "1.png"]
    assert ids(sample=4) == sorted(ids(sample=4))
    assert len(ids(sample=4)) == 4
    assert ids(sample=4, sample_seed=1) != ids(sample=4)
    assert ids(sample=4, limit=2) == ids(sample=4)[:2]
