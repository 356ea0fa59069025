"""The page of `amg report` in Chromium, opened from the disk as a user does: make browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amg_pipeline.amg.rle import encode_mask
from amg_pipeline.records import CropBox, ImageResult, MaskRecord
from amg_pipeline.report.run_report import write_run_report
from amg_pipeline.storage.mask_table import encode_table
from tests.browser.conftest import SCREENSHOTS
from tests.photo_runs import plan_photos, write_photo

pytestmark = pytest.mark.browser

HOSTILE = "<img src=x onerror=alert(1)>'\"\u202egnp.png"
#: Name of an image of many masks, and their number.
MANY, COUNT = "many.png", 200
HEIGHT, WIDTH = 900, 1200


def make_record(mask: NDArray[np.bool_], score: float) -> MaskRecord:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return MaskRecord(
        rle=encode_mask(mask),
        box_xyxy=(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])),
        predicted_iou=score,
        stability_score=0.95,
        point_coords=(float(columns.mean()), float(rows.mean())),
        crop_box=CropBox(0, 0, WIDTH, HEIGHT, layer=0),
    )


@pytest.fixture(scope="module")
def page_at(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of the page of a run of two photos."""
    folder = tmp_path_factory.mktemp("report")
    photos = folder / "photos"
    photos.mkdir()
    for name in (MANY, HOSTILE):
        write_photo(photos / name, height=HEIGHT, width=WIDTH)
    plan = plan_photos(photos, folder / "run")
    random = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for shard in plan.run_directory.shards(plan.stored):
        results = []
        for ref in shard.images:
            discs = [(WIDTH / 2, HEIGHT / 2, 300.0), (WIDTH / 2, HEIGHT / 2, 60.0)]
            if ref.image_id == MANY:
                sizes = random.uniform(10, 120, COUNT - 2)
                discs += [(*random.uniform((0, 0), (WIDTH, HEIGHT)), size) for size in sizes]
            records = tuple(
                make_record(np.hypot(x - cx, y - cy) < radius, 0.9 - 0.001 * number)
                for number, (cx, cy, radius) in enumerate(discs)
            )
            results.append(ImageResult(ref, "ok", width=WIDTH, height=HEIGHT, masks=records))
        data = encode_table(results, plan.table_metadata)
        plan.run_directory.commit_shard(plan.stored, shard.shard_id, data)
    return Path(write_run_report(str(folder / "run"), str(folder / "page")).page).as_uri()


@pytest.fixture
def page(open_page: Callable[..., Any], page_at: str) -> Any:
    asked: list[str] = []
    page = open_page("about:blank")
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: pytest.fail(f"a name ran: {dialog.message}"))
    page.goto(page_at)
    yield page
    folder = page_at.rpartition("/")[0]
    assert [url for url in asked if not url.startswith(folder)] == []


def test_pointer_on_a_card_tells_the_scores_of_the_smallest_mask(page: Any) -> None:
    picture = page.locator("#gallery-all .picture").first
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)

    page.mouse.move(*middle)
    page.mouse.move(middle[0] + 1, middle[1])
    page.wait_for_selector("#tip:not([hidden])")
    # The disc of 60 pixels, not the one of 300 around it.
    assert "predicted IoU 0.899" in page.inner_text("#tip")
    assert picture.locator("canvas").count() == 1

    page.mouse.move(box["x"] + box["width"] / 2, box["y"] - 40)
    page.wait_for_selector("#tip", state="hidden")
    assert picture.locator("canvas").count() == 0


def test_every_mask_can_be_reached_by_keyboard(page: Any) -> None:
    page.locator("#gallery-all .picture").nth(1).focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#viewer[open] tbody tr")
    rows = page.locator("#viewer tbody tr")
    assert rows.count() == COUNT

    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert "predicted IoU" in page.evaluate("document.activeElement.ariaLabel")
    assert page.locator("tr[aria-selected=true]").count() == 1
    page.keyboard.press("o")
    assert page.get_attribute("[data-mode=outlines]", "aria-pressed") == "true"
    page.screenshot(path=SCREENSHOTS / "report-viewer.png")
    page.keyboard.press("ArrowRight")
    # The page's policy forbids what `wait_for_function` does.
    page.wait_for_selector("#viewer tbody tr:nth-child(3)", state="detached")
    page.wait_for_selector("#viewer tbody tr:nth-child(2)")
    # The sign that turns the writing is spelled out.
    assert page.inner_text("#viewer-name") == HOSTILE.replace("\u202e", "\\u202e")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.className") == "picture"


def test_mask_is_drawn_where_it_lies(page: Any) -> None:
    page.locator("#gallery-all .picture").first.click()
    page.wait_for_selector("#viewer[open] tbody tr")
    page.keyboard.press("ArrowDown")

    alpha = page.evaluate(
        """() => {
          const canvas = document.querySelector(".focus"), scale = canvas.width / 1200;
          const at = (x, y) => canvas.getContext("2d").getImageData(x * scale, y * scale, 1, 1);
          return [[600, 300], [600, 152], [600, 100]].map(([x, y]) => [...at(x, y).data]);
        }"""
    )
    # Clear inside, a white line at the border, and shade outside of the disc of 300 pixels.
    assert alpha[0][3] == 0
    assert alpha[1] == [255, 255, 255, 255]
    assert alpha[2][3] in range(140, 160)


def test_sections_are_shown_one_at_a_time(page: Any) -> None:
    page.click("text=Most masks")

    assert page.locator(".shelf:visible").count() == 1
    assert page.evaluate("location.hash") == "#gallery-most"
    assert MANY in page.locator(".shelf:visible .name").first.inner_text()


def test_two_hundred_masks_answer_the_pointer_at_once(page: Any) -> None:
    page.locator("#gallery-all .picture").nth(1).click()
    page.wait_for_selector("#viewer[open] tbody tr")
    box = page.locator(".stage").bounding_box()

    spent = page.evaluate(
        """([x, y, width, height]) => {
          const stage = document.querySelector(".stage"), spent = [];
          for (let i = 0; i < 60; i++) {
            const started = performance.now();
            stage.dispatchEvent(new PointerEvent("pointermove", {
              clientX: x + width * (0.2 + 0.01 * i), clientY: y + height * (0.25 + 0.008 * i),
            }));
            spent.push(performance.now() - started);
          }
          return spent.sort((a, b) => a - b);
        }""",
        [box["x"], box["y"], box["width"], box["height"]],
    )

    print(f"pointer: median {spent[30]:.1f} ms, slowest {spent[-1]:.1f} ms")
    assert spent[30] < 50


def test_page_without_scripts_shows_everything(open_page: Callable[..., Any], page_at: str) -> None:
    page = open_page(page_at, java_script_enabled=False)

    assert page.locator(".shelf:visible").count() == 4
    assert page.locator(".picture img").count() == 8
    page.locator("#gallery-all .picture").first.click()
    assert page.url.endswith("-thumb.jpg")
