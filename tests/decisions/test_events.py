"""Events and what they come to."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from amg_pipeline.decisions.events import (
    Change,
    Event,
    ImageReview,
    Standing,
    fold,
    mask_names,
    merge_name,
    merges_of,
)
from amg_pipeline.storage.image_masks import ImageMasks

ACCEPTED, REJECTED, BLANK = Standing(decision="accepted"), Standing(decision="rejected"), Standing()


def make_image(*counts: str, height: int = 10, width: int = 20) -> ImageMasks:
    number = len(counts)
    return ImageMasks(
        image_id="a.jpg",
        uri="/in/a.jpg",
        status="ok",
        width=width,
        height=height,
        counts=counts,
        bbox_xywh=np.zeros((number, 4), np.float32),
        area=np.ones(number, np.int64),
        predicted_iou=np.ones(number, np.float32),
        stability_score=np.ones(number, np.float32),
        point_coords=np.zeros((number, 2)),
        crop_box_xywh=np.zeros((number, 4), np.int32),
    )


def line(image_id: str = "a.jpg", **change: object) -> bytes:
    return json.dumps({"image_id": image_id, "row": 3, "change": change}).encode()


def test_names_tell_pixels_apart_and_count_equal_masks() -> None:
    names = mask_names(make_image("abc", "abd", "abc", "abc"))

    assert len(set(names)) == 4
    assert names[2] == f"{names[0]}-2"
    assert names[3] == f"{names[0]}-3"
    assert mask_names(make_image("abd", "abc")) == [names[1], names[0]]


def test_same_run_lengths_in_another_shape_are_another_mask() -> None:
    wide = mask_names(make_image("abc", height=10, width=20))

    assert wide != mask_names(make_image("abc", height=20, width=10))


def test_last_event_about_a_mask_counts() -> None:
    images, unreadable = fold(
        [
            line(masks={"m": {"decision": "accepted", "tags": ["cat"]}, "n": {}}),
            line(masks={"m": {"decision": "rejected"}}, is_done=True),
            line("b.jpg", masks={"m": {"decision": "accepted"}}),
        ]
    )

    assert unreadable == 0
    assert images["a.jpg"] == ImageReview(row=3, masks={"m": REJECTED}, is_done=True)
    assert images["b.jpg"].masks == {"m": ACCEPTED}


def test_event_that_takes_all_back_leaves_a_blank_review() -> None:
    images, _ = fold(
        [
            line(masks={"m": {"decision": "accepted"}}, merges={"m+n": {}}, is_done=True),
            line(masks={"m": {}}, merges={"m+n": None}, is_done=False),
        ]
    )

    assert images["a.jpg"].is_blank


@pytest.mark.parametrize(
    "remains",
    [
        pytest.param(b'{"image_id":"a.jpg","row":3,"chan', id="half"),
        pytest.param(b"\xff\x00\xfe", id="bytes"),
        pytest.param(b"[]", id="other-json"),
        pytest.param(b'{"image_id":"a.jpg","row":-1,"change":{}}', id="impossible"),
        pytest.param(
            b'{"image_id":"a","row":1,"change":{"masks":{"m":{"decision":"maybe"}}}}', id="word"
        ),
    ],
)
def test_remains_of_a_kill_are_left_out_and_counted(remains: bytes) -> None:
    before, after = line(masks={"m": {"decision": "accepted"}}), line(is_done=True)

    images, unreadable = fold([before, remains, b"", after])

    assert unreadable == 1
    assert images == fold([before, after])[0]


@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from("xyz"),
            st.sampled_from([ACCEPTED, REJECTED, BLANK]),
        )
    )
)
def test_state_is_the_last_word_on_each_mask(events: list[tuple[str, str, Standing]]) -> None:
    lines = [
        Event(image_id=image, row=0, change=Change(masks={mask: standing}))
        .model_dump_json()
        .encode()
        for image, mask, standing in events
    ]
    expected = {(image, mask): standing for image, mask, standing in events}

    images, unreadable = fold(lines)

    assert unreadable == 0
    for (image, mask), standing in expected.items():
        assert images[image].masks.get(mask, BLANK) == standing


@pytest.mark.parametrize("tags", [[""], ["  "], ["x" * 65], ["t"] * 33, "word"])
def test_unfit_tags_are_refused(tags: object) -> None:
    with pytest.raises(ValidationError):
        Standing.model_validate({"tags": tags})


def test_merges_are_those_whose_parts_are_all_there() -> None:
    review = ImageReview(merges={merge_name("cb"): ACCEPTED, merge_name("ad"): ACCEPTED})

    assert merge_name("cb") == merge_name("bc") == "b+c"
    assert merges_of([review], ["a", "b", "c"]) == {"b+c": [1, 2]}
