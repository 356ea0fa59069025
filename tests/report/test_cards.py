"""Pictures of a gallery, and what the page's script reads."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.amg.rle import decode_mask, rle_from_coco
from amg_pipeline.errors import ImageNotFoundError
from amg_pipeline.report import cards
from amg_pipeline.report.cards import CARD_FILE, make_card
from amg_pipeline.storage.image_masks import ImageMasks
from tests.report.images import box_mask, make_image

BIG = box_mask((30, 40), slice(5, 25), slice(2, 30))
SMALL = box_mask((30, 40), slice(8, 12), slice(20, 26))


def grey(image: ImageMasks) -> NDArray[np.uint8]:
    return np.full((image.height, image.width, 3), 90, np.uint8)


def script_of(files: dict[str, bytes]) -> tuple[str, dict[str, object]]:
    [text] = [data.decode("ascii") for name, data in files.items() if name.endswith(".js")]
    match = re.fullmatch(r'amgMasks\("([0-9a-f]{16})",(\{.*\})\);\n', text)
    assert match
    return match[1], json.loads(match[2])


def pixels_of(files: dict[str, bytes], ending: str) -> NDArray[np.int64]:
    [data] = [data for name, data in files.items() if name.endswith(ending)]
    return np.asarray(Image.open(io.BytesIO(data))).astype(int)


def test_card_has_a_picture_a_photo_and_the_masks() -> None:
    image = make_image([SMALL, BIG], ious=[0.6, 0.8], stabilities=[0.91, float("nan")])

    card, files = make_card(image, grey)

    assert all(CARD_FILE.fullmatch(name) and name.startswith(card.key) for name in files)
    assert len(files) == 3
    assert (card.num_masks, card.thumb_wh, card.problem) == (2, (40, 30), None)
    assert card.scores == "predicted IoU 0.60–0.80 · stability 0.91–0.91"
    assert np.abs(pixels_of(files, "photo.jpg") - 90).max() <= 2
    thumb = pixels_of(files, "thumb.jpg")
    assert np.abs(thumb[20, 10] - 90).max() > 20
    assert np.abs(thumb[28, 37] - 90).max() <= 10


def test_script_holds_the_masks_and_their_scores() -> None:
    image = make_image([SMALL, BIG], ious=[0.6, 0.8], stabilities=[0.91, float("nan")])

    card, files = make_card(image, grey)
    key, data = script_of(files)

    assert (key, data["width"], data["height"], data["pixels"]) == (card.key, 40, 30, 1200)
    first, second = data["masks"]
    # The larger one is drawn first, and lies below.
    assert (first[5:8], second[5:8]) == ([0.8, None, 560], [0.6, 0.91, 24])
    for row, mask in ((first, BIG), (second, SMALL)):
        left, top, width, height, counts = row[:5]
        window = decode_mask(rle_from_coco({"size": (height, width), "counts": counts}))
        np.testing.assert_array_equal(window, mask[top : top + height, left : left + width])
        assert window.sum() == mask.sum()
        assert row[8:] == [3.0, 3.0]


def test_large_image_is_shrunk_with_its_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "MAX_SIDE", 20)
    monkeypatch.setattr(cards, "THUMB_SIDE", 10)

    card, files = make_card(make_image([BIG]), grey)
    _, data = script_of(files)

    assert card.thumb_wh == (10, 8)
    assert (card.width, card.height) == (40, 30)
    assert pixels_of(files, "photo.jpg").shape[:2] == (15, 20)
    assert data["masks"][0][:4] == [1, 2, 14, 10]
    assert data["masks"][0][7:] == [560, 1.5, 1.5]


def test_photo_that_is_gone_leaves_the_masks_on_grey() -> None:
    def fail(image: ImageMasks) -> NDArray[np.uint8]:
        raise ImageNotFoundError("nothing is there")

    card, files = make_card(make_image([BIG]), fail)

    assert card.problem == "The photo cannot be shown: nothing is there"
    assert card.thumb_wh == (40, 30)
    assert len(np.unique(pixels_of(files, "photo.jpg"))) == 1
    assert len(script_of(files)[1]["masks"]) == 1


def test_damaged_masks_leave_a_card_that_says_so() -> None:
    card, files = make_card(replace(make_image([BIG]), counts=["!"]), grey)

    assert card.problem is not None
    assert card.problem.startswith("The masks cannot be shown: ")
    assert (files, card.thumb_wh) == ({}, None)


def test_image_without_masks_is_a_photo() -> None:
    card, files = make_card(make_image([]), grey)

    assert (card.scores, card.num_masks) == ("", 0)
    assert script_of(files)[1]["masks"] == []
    np.testing.assert_array_equal(pixels_of(files, "thumb.jpg"), pixels_of(files, "photo.jpg"))


def test_names_do_not_get_into_names_of_files_or_scripts() -> None:
    hostile = '../"</script><b>\u202e\n'

    card, files = make_card(make_image([BIG], image_id=hostile), grey)

    assert card.image_id == hostile
    assert all(CARD_FILE.fullmatch(name) for name in files)
    assert script_of(files)[0] == card.key
    assert make_card(make_image([BIG], image_id="b"), grey)[0].key != card.key
