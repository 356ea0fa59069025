from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.amg.rle import encode_mask, rle_to_coco
from amg_pipeline.errors import ConfigError, ImageDecodeError, ImageNotFoundError
from amg_pipeline.report.html import write_report

HOSTILE = """<script>alert("1")</script>' onerror=x &amp; "quoted" ü 漢.jpg"""


class _Page(HTMLParser):
    """Collects what a browser would see: tags with attributes, and the text outside scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.by_tag: dict[str, list[str]] = {"dt": [], "dd": []}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"} and data.strip():
            self.text.append(data.strip())
            self.by_tag.setdefault(self.open[-1], []).append(data.strip())

    def cards(self, kind: str = "card") -> list[dict[str, str | None]]:
        return [attrs for tag, attrs in self.tags if tag == "figure" and attrs.get("class") == kind]

    def facts(self) -> dict[str, str]:
        """The tiles on top, by what they count."""
        return dict(zip(self.by_tag["dt"], self.by_tag["dd"], strict=True))


def _mask_row(mask: NDArray[np.bool_], *, iou: float, stability: float = 0.9) -> dict[str, Any]:
    rle = encode_mask(mask)
    counts = rle_to_coco(rle)["counts"]
    return {
        "counts": counts,
        "area": rle.area,
        "predicted_iou": iou,
        "stability_score": stability,
    }


def _row(
    name: str = "a.jpg", *, masks: int = 2, height: int = 30, width: int = 40
) -> dict[str, Any]:
    mask = np.zeros((height, width), np.bool_)
    mask[5:20, 5:20] = True
    return {
        "image_id": name,
        "uri": f"file:///photos/{name}",
        "status": "ok",
        "error_type": None,
        "error_message": None,
        "width": width,
        "height": height,
        "num_masks": masks,
        "masks": [_mask_row(mask, iou=0.6 + 0.1 * i) for i in range(masks)],
    }


def _failed(
    name: str, *, status: str = "decode_error", message: str | None = "no image"
) -> dict[str, Any]:
    empty = {"width": None, "height": None, "num_masks": 0, "masks": []}
    error = {"status": status, "error_type": "ImageDecodeError", "error_message": message}
    return {**_row(name, masks=0), **empty, **error}


def _load(uri: str) -> NDArray[np.uint8]:
    return np.full((30, 40, 3), 90, np.uint8)


def test_write_report_makes_a_page_whose_pictures_exist(tmp_path: Path) -> None:
    path = write_report(
        [_row("a.jpg"), _row("b.jpg")], tmp_path / "new" / "page", load_pixels=_load
    )

    page = _Page(path)
    assert path == tmp_path / "new" / "page" / "index.html"
    assert page.open == []
    targets = [attrs[key] for tag, attrs in page.tags for key in ("src", "href") if attrs.get(key)]
    targets += [card["data-photo"] for card in page.cards()]
    assert len(targets) == 6
    for target in targets:
        with Image.open(path.parent / target) as picture:
            assert picture.size == (40, 30)
    assert {p.name for p in path.parent.iterdir()} == {"images", "index.html"}


def test_write_report_shows_the_overlay_and_keeps_the_photo(tmp_path: Path) -> None:
    path = write_report([_row()], tmp_path, load_pixels=_load)

    photo = np.asarray(Image.open(path.parent / "images/00000-photo.jpg")).astype(int)
    overlay = np.asarray(Image.open(path.parent / "images/00000-masks.jpg")).astype(int)
    assert np.abs(photo - 90).max() <= 2
    assert np.abs(overlay[10, 10] - 90).max() > 30
    assert np.abs(overlay[27, 35] - 90).max() <= 10


def test_write_report_asks_nothing_of_the_network(tmp_path: Path) -> None:
    text = write_report([_row()], tmp_path, load_pixels=_load).read_text(encoding="utf-8")

    assert not re.search(r"https?:|//[a-z]|@import|url\(", re.sub(r"^//.*$", "", text, flags=re.M))


def test_write_report_counts_every_row(tmp_path: Path) -> None:
    rows = [_row("a.jpg", masks=1), _row("b.jpg", masks=4), _row("c.jpg", masks=3)]
    rows += [_failed("d.jpg"), _failed("e.jpg"), _failed("f.jpg", status="too_large")]

    page = _Page(write_report(rows, tmp_path, load_pixels=_load, title="A run"))

    assert page.text[:2] == ["A run", "A run"]
    assert page.facts() == {
        "images": "6",
        "masks": "8",
        "median masks an image": "3",
        "most on one image": "4",
        "decode_error": "2",
        "too_large": "1",
    }


def test_write_report_shows_counts_and_scores_of_an_image(tmp_path: Path) -> None:
    page = _Page(write_report([_row(masks=3), _row("b.jpg", masks=1)], tmp_path, load_pixels=_load))

    assert "3 masks" in page.text
    assert "1 mask" in page.text
    assert "40 × 30 · predicted IoU 0.60–0.80 · stability 0.90–0.90" in page.text


def test_write_report_image_without_masks_shows_the_photo(tmp_path: Path) -> None:
    page = _Page(write_report([_row(masks=0)], tmp_path, load_pixels=_load))

    assert "0 masks" in page.text
    assert "40 × 30" in page.text
    assert len(page.cards()) == 1


def test_write_report_treats_names_and_messages_as_text(tmp_path: Path) -> None:
    rows = [_row(HOSTILE), _failed(HOSTILE, message=HOSTILE)]

    page = _Page(write_report(rows, tmp_path, load_pixels=_load, title=HOSTILE))

    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any("onerror" in attrs for _, attrs in page.tags)
    assert page.cards()[0]["data-name"] == HOSTILE
    assert page.text.count(HOSTILE) == 4  # title, heading and two names
    assert f"decode_error: {HOSTILE}" in page.text
    assert sorted(p.name for p in (tmp_path / "images").iterdir()) == [
        "00000-masks.jpg",
        "00000-photo.jpg",
    ]


def test_write_report_failed_image_without_message_names_the_error(tmp_path: Path) -> None:
    page = _Page(write_report([_failed("a.jpg", message=None)], tmp_path, load_pixels=_load))

    assert "decode_error: ImageDecodeError" in page.text
    assert page.facts()["most on one image"] == "–"


@pytest.mark.parametrize(
    "error",
    [ImageNotFoundError("gone"), ImageDecodeError("broken")],
    ids=["missing", "undecodable"],
)
def test_write_report_photo_that_cannot_be_read_gets_a_card(
    tmp_path: Path, error: Exception
) -> None:
    def fail(uri: str) -> NDArray[np.uint8]:
        raise error

    page = _Page(write_report([_row()], tmp_path, load_pixels=fail))

    assert f"2 masks, but the photo cannot be shown: {error}" in page.text
    assert len(page.cards("card failed")) == 1


def test_write_report_photo_of_another_size_gets_a_card(tmp_path: Path) -> None:
    page = _Page(write_report([_row(width=41)], tmp_path, load_pixels=_load))

    assert any("must be 41 x 30 pixels" in text for text in page.text)
    assert page.cards() == []


def test_write_report_loads_only_the_gallery(tmp_path: Path) -> None:
    loaded = []

    def load(uri: str) -> NDArray[np.uint8]:
        loaded.append(uri)
        return _load(uri)

    rows = (_row(f"{i}.jpg") for i in range(5))
    page = _Page(write_report(rows, tmp_path, load_pixels=load, limit=2))

    assert loaded == ["file:///photos/0.jpg", "file:///photos/1.jpg"]
    assert page.facts()["images"] == "5"
    assert "3 more images not shown here." in page.text


def test_write_report_again_replaces_the_earlier_page(tmp_path: Path) -> None:
    write_report([_row("a.jpg"), _row("b.jpg")], tmp_path, load_pixels=_load)
    own = tmp_path / "images" / "notes.jpg"
    own.touch()

    path = write_report([_row("c.jpg")], tmp_path, load_pixels=_load)

    assert sorted(p.name for p in own.parent.iterdir()) == [
        "00000-masks.jpg",
        "00000-photo.jpg",
        "notes.jpg",
    ]
    assert "a.jpg" not in path.read_text(encoding="utf-8")


def test_write_report_is_repeatable(tmp_path: Path) -> None:
    one = write_report([_row()], tmp_path / "one", load_pixels=_load)
    two = write_report([_row()], tmp_path / "two", load_pixels=_load)

    files = [p.relative_to(one.parent) for p in sorted(one.parent.rglob("*.*"))]
    assert len(files) == 3
    for file in files:
        assert (one.parent / file).read_bytes() == (two.parent / file).read_bytes()


def test_write_report_of_nothing_is_a_page(tmp_path: Path) -> None:
    page = _Page(write_report([], tmp_path, load_pixels=_load, title="Empty"))

    assert page.text[2:6] == ["0", "images", "0", "masks"]
    assert page.cards() == []


def test_write_report_keeps_pictures_of_others(tmp_path: Path) -> None:
    write_report([_row()], tmp_path, load_pixels=_load)
    own = tmp_path / "images" / "00012-holiday.jpg"
    own.write_bytes(b"mine")
    write_report([_row()], tmp_path, load_pixels=_load)
    assert own.read_bytes() == b"mine"


@pytest.mark.parametrize(
    "name", ["index.html", "thesis.tex", "images/00012-holiday.jpg", "images/albums/a.jpg"]
)
def test_write_report_refuses_a_folder_of_somebody_else(tmp_path: Path, name: str) -> None:
    own = tmp_path / name
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(b"mine")
    with pytest.raises(ConfigError, match="Choose another folder"):
        write_report([_row()], tmp_path, load_pixels=_load)
    assert own.read_bytes() == b"mine"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [own]


def test_write_report_goes_on_after_one_that_was_killed(tmp_path: Path) -> None:
    write_report([_row("a.jpg"), _row("b.jpg")], tmp_path, load_pixels=_load)
    (tmp_path / "index.html").rename(tmp_path / "index.html.partial")
    write_report([_row()], tmp_path, load_pixels=_load)
    assert len(list((tmp_path / "images").iterdir())) == 2


def test_write_report_leaves_out_scores_that_are_none(tmp_path: Path) -> None:
    row = _row(masks=3)
    row["masks"][0]["stability_score"] = math.nan
    lonely = _row("b.jpg", masks=1)
    lonely["masks"][0]["stability_score"] = math.nan
    page = _Page(write_report([row, lonely], tmp_path, load_pixels=_load))
    facts = [text for text in page.text if "stability" in text]
    assert facts[0].endswith("stability 0.90–0.90")
    assert facts[1].endswith("stability –")
