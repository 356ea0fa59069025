"""The document: what a browser sees of it, and what it does not."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import Any

import pytest

from amg_pipeline.report.cards import make_card
from amg_pipeline.report.facts import RunFacts
from amg_pipeline.report.html import RunPage, render_page
from amg_pipeline.report.picks import Gallery
from amg_pipeline.report.timings import Timings
from amg_pipeline.selection import Selection
from amg_pipeline.storage.image_scores import ImageScores
from amg_pipeline.storage.stored_plan import StoredPlan
from tests.report.images import box_mask, make_image, make_scores
from tests.report.test_cards import grey

#: Ends every context that a name could get into, and turns the writing around.
HOSTILE = (
    '<script>alert(1)</script>\' onerror=x " onload="y" &amp; </title></style>'
    "javascript:alert(2) ${x} \u202egpj.exe\u2066 \n\r\x00\u2028 ü 漢.jpg"
)
SHOWN = (
    '<script>alert(1)</script>\' onerror=x " onload="y" &amp; </title></style>'
    "javascript:alert(2) ${x} \\u202egpj.exe\\u2066 \\n\\r\\x00\\u2028 ü 漢.jpg"
)
_VOID = frozenset({"meta", "img", "link", "line", "rect"})


class Document(HTMLParser):
    """Collects tags with their attributes, and the text outside of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"} and data.strip():
            self.text.append(data.strip())

    def attributes(self, name: str) -> list[str]:
        return [value for _, attrs in self.tags for key, value in attrs.items() if key == name]


def make_plan(**changes: Any) -> StoredPlan:
    values: dict[str, Any] = {
        "fingerprint": "ab" * 32,
        "fingerprint_fields": {"amg.pred_iou_thresh": 0.85, "model.variant": "tiny"},
        "config": {"amg": {"pred_iou_thresh": 0.85}, "model": {"variant": "tiny"}, "images": {}},
        "weights_sha256": "cd" * 32,
        "package_version": "0.1.0",
        "schema_version": 1,
        "num_images": 3,
        "num_bytes": 0,
        "num_unsized": 0,
        "num_shards": 2,
    }
    return StoredPlan(**{**values, **changes})


def render(
    images: Iterable[ImageScores],
    *,
    title: str = "A run",
    shards_done: int = 2,
    given_up: Mapping[int, str] | None = None,
    selection: Selection | None = None,
    timings: Timings | None = None,
    limit: int = 24,
    plan: StoredPlan | None = None,
) -> str:
    facts = RunFacts(Gallery(limit))
    selection = selection or Selection()
    for image in images:
        facts.add(image, selection)
    sections = facts.gallery.sections()
    mask = box_mask((30, 40), slice(5, 20), slice(5, 20))
    cards = {
        pick.place: make_card(make_image([mask] * pick.num_masks, image_id=pick.image_id), grey)[0]
        for section in sections
        for pick in section.picks
    }
    return render_page(
        RunPage(
            title=title,
            plan=plan or make_plan(),
            shards_done=shards_done,
            given_up=given_up or {},
            selection=selection,
            facts=facts,
            timings=timings or Timings(0, 0, 0.0, {}, ()),
            sections=sections,
            cards=cards,
        )
    )


def failed(name: str, message: str | None = "no image", row: int = 0) -> ImageScores:
    return make_scores(
        name, row=row, ious=[], status="decode_error", error=("ImageDecodeError", message)
    )


def test_page_is_well_formed_and_says_the_totals() -> None:
    images = [make_scores("a.jpg"), make_scores("b.jpg", row=1, ious=[0.9] * 4), failed("c", row=2)]

    text = render(images)

    assert Document(text).open == []
    assert dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text)) == {
        "images": "3",
        "masks": "6",
        "median masks an image": "2",
        "most on one image": "4",
        "failed images": "1",
    }


def test_stored_text_stays_text() -> None:
    timings = Timings(1, 1, 1.0, {HOSTILE: 1.0}, ((HOSTILE, 1.0),))
    plan = make_plan(
        package_version=HOSTILE,
        fingerprint_fields={HOSTILE: HOSTILE},
        config={"amg": {}, "model": {"variant": HOSTILE}},
    )
    text = render(
        [make_scores(HOSTILE), failed(HOSTILE, HOSTILE, row=1)],
        title=HOSTILE,
        given_up={3: HOSTILE},
        selection=Selection(images=(HOSTILE, "*")),
        timings=timings,
        plan=plan,
    )
    page = Document(text)

    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not {"onerror", "onload"} & {name for _, attrs in page.tags for name in attrs}
    assert page.open == []
    # Title, heading, the run's line, a card in each of four sections, failure and message, shard
    # given up, stage, slowest image, and a setting with its value.
    assert sum(SHOWN in found for found in page.text) >= 13
    assert set("\u202e\u2066\u2028\x00\r").isdisjoint(text)
    assert SHOWN in page.attributes("title")
    assert f"2 masks on {SHOWN}" in page.attributes("alt")


def test_links_stay_beside_the_page() -> None:
    page = Document(render([make_scores("//evil.example/a.jpg"), make_scores("b", row=1)]))

    links = page.attributes("src") + page.attributes("href")
    assert links
    for link in links:
        assert re.fullmatch(r"#[a-z-]+|images/icon\.svg|images/[0-9a-f]{16}-thumb\.jpg", link)


def test_page_asks_nothing_of_the_network() -> None:
    text = render([make_scores("a.jpg")])

    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp|import\(", text)


def test_policy_allows_the_own_script_only() -> None:
    text = render([make_scores("a.jpg")])
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    [script] = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)

    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'self' file: 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy.partition("script-src")[2].partition(";")[0]


def test_failures_are_grouped_with_their_images() -> None:
    images = [failed("c.jpg", "no image"), failed("d.jpg", None, row=1)]

    page = Document(render(images, given_up={7: "crash: WorkerDied"}))

    for expected in ("2 images", "decode_error", "c.jpg", "no image", "d.jpg", "1 shard given up"):
        assert expected in page.text
    assert "crash: WorkerDied" in page.text
    assert "Gallery" not in page.text


def test_unfinished_and_filtered_runs_say_so() -> None:
    page = render(
        [make_scores("a.jpg", ious=[0.9, 0.5])],
        shards_done=1,
        selection=Selection(min_iou=0.6, images=("a*", "b*")),
        plan=make_plan(config={"amg": {"keep_candidates": True}, "model": {}}),
    )

    assert "1 of 2 shards are done" in page
    assert "Filtered: min iou 0.6, images a*, b*. 1 mask left out." in page
    assert "These are candidates" in page
    assert "images not in this page" in page


def test_times_are_told_where_they_are_known() -> None:
    timings = Timings(1, 30, 20.0, {"generate": 18.0, "load": 9.0}, (("slow.jpg", 4.25),))

    page = Document(render([make_scores("a.jpg")], timings=timings))

    assert "slow.jpg" in page.text
    assert "4.25 s" in page.text
    assert any("1.5 images per second" in found for found in page.text)
    assert any("Of 2 shards that are done, 1 recorded" in found for found in page.text)
    assert "width:50.0%" in page.attributes("style")
    assert "Time" not in Document(render([make_scores("a.jpg")])).text


def test_thresholds_of_the_run_are_drawn() -> None:
    assert "threshold 0.85" in render([make_scores("a.jpg", ious=[0.8, 0.9])])


def test_sections_of_a_large_run_say_how_many_there_are() -> None:
    images = [make_scores(f"{row}", row=row) for row in range(5)]

    page = Document(render(images, limit=2))

    assert any("2 images of 5 in each section" in found for found in page.text)
    assert {"Random images", "Most masks", "Fewest masks", "Lowest scores"} <= set(page.text)


@pytest.mark.parametrize("images", [[], [failed("a")]], ids=["nothing", "failures-only"])
def test_page_without_masks_is_a_page(images: list[ImageScores]) -> None:
    page = Document(render(images))

    assert page.open == []
    assert page.text.count("No values yet.") == 4
