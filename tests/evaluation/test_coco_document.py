from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.errors import ConfigError
from amg_pipeline.evaluation.coco_document import CocoEntry, parse_coco
from amg_pipeline.evaluation.datasets import open_dataset
from amg_pipeline.training.sources.coco import read_coco

TRIANGLE = [[0, 0, 3, 0, 3, 2]]


def image(number: Any, name: str = "a.png") -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 4, "height": 3}


def parse(images: Any, annotations: Any, **options: Any) -> list[CocoEntry]:
    document = {"images": images, "annotations": annotations}
    return parse_coco(document, place="here.json", **{"max_side": 100, **options})


def test_images_keep_their_order_also_without_segmentations() -> None:
    (first, second) = parse([image(9), image(2, "b.png")], [{"image_id": 2, "segmentation": [1]}])

    assert first == CocoEntry("a.png", 3, 4, ())
    assert second == CocoEntry("b.png", 3, 4, ([1],))


@pytest.mark.parametrize("ids", [(7, 7.0), ("7", 7), ("x-1", "x-1")], ids=str)
def test_ids_may_be_written_in_several_ways(ids: tuple[Any, Any]) -> None:
    (entry,) = parse([image(ids[0])], [{"image_id": ids[1], "segmentation": TRIANGLE}])

    assert entry.segmentations == (TRIANGLE,)


@pytest.mark.parametrize(("takes_crowds", "count"), [(False, 0), (True, 1)])
def test_crowds_count_if_asked_for(takes_crowds: bool, count: int) -> None:
    crowd = {"image_id": 1, "iscrowd": 1, "segmentation": TRIANGLE}

    (entry,) = parse([image(1)], [crowd], takes_crowds=takes_crowds)

    assert len(entry.segmentations) == count


@pytest.mark.parametrize(
    ("images", "annotations", "message"),
    [
        pytest.param([image(1), image("1")], [], "two images of one id, 1", id="same-id"),
        pytest.param([image(1)], [{"image_id": 2}], "image 2, which is not listed", id="unlisted"),
        pytest.param([image(1)], [{}], "without 'image_id'", id="no-image-id"),
        pytest.param([image(None)], [], "the id None", id="no-id"),
        pytest.param([image([1])], [], r"the id \[1\]", id="list-as-id"),
        pytest.param([{"id": 1, "file_name": "a"}], [], "without 'height'", id="no-height"),
        pytest.param([{**image(1), "width": 101}], [], "the size 101 x 3", id="too-wide"),
        pytest.param([{**image(1), "width": float("inf")}], [], "infinity", id="infinite"),
        pytest.param([7], [], "here.json", id="no-object"),
        pytest.param(None, None, "here.json", id="no-lists"),
        pytest.param([image(1)], [7], "here.json", id="number-as-annotation"),
    ],
)
def test_what_is_not_clear_is_refused(images: Any, annotations: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(images, annotations)


@pytest.mark.parametrize("document", [[], 3, None, {"images": []}], ids=str)
def test_other_documents_are_refused(document: Any) -> None:
    with pytest.raises(ConfigError, match=r"COCO file.*here\.json"):
        parse_coco(document, place="here.json", max_side=100)


def test_boxes_are_left_out_and_counted_by_both_readers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = {"image_id": 1, "bbox": [0, 0, 2, 2]}
    annotations = [box, {**box, "segmentation": None}, {"image_id": "1", "segmentation": TRIANGLE}]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": [image(1)], "annotations": annotations}))

    with caplog.at_level(logging.WARNING, "amg_pipeline"):
        (trained_on,) = read_coco(path)
        (measured,) = open_dataset("coco", images=str(tmp_path), annotations=str(path))

    assert len(trained_on.masks) == len(measured.read_annotations()[0].segments) == 1
    counts = [record.fields["annotations"] for record in caplog.records]  # type: ignore[attr-defined]
    assert counts == [2, 2]
