"""The review page in Chromium: a user's path up to an export, and how quick it is.

Run by `make browser`; what it looks like is kept in screenshots/.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from amg_pipeline.planning import Plan
from amg_pipeline.storage.mask_table import encode_rows
from benchmarks.synthetic_run import HEIGHT, WIDTH, _make_pool, _make_rows
from tests.browser.conftest import ROOT, SCREENSHOTS
from tests.export.stored_runs import stored_masks, write_run
from tests.photo_runs import plan_photos

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Serve = Callable[..., str]
OpenPage = Callable[..., Any]

IMAGES, MASKS = 500, 200
#: What has to hold (point 4 of the issue).
FIRST_PAINT_MS, REPAINT_MS = 1000, 50


def amg(*words: object) -> None:
    command = [sys.executable, "-m", "amg_pipeline.cli", *map(str, words)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=120, capture_output=True)


def ready(page: Any, image_id: str | None = None) -> None:
    if image_id is not None:
        page.get_by_role("heading", name=image_id, exact=True).wait_for()
    page.wait_for_selector("#picture[src]", state="attached")


def saved(page: Any) -> None:
    page.get_by_text("All decisions are saved").wait_for()


def option(page: Any, index: int) -> Any:
    return page.locator(f"#mask-{index}")


def set_slider(page: Any, key: str, value: float) -> None:
    page.locator(f"#slider-{key}").evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value,
    )


def place_of(page: Any, x: float, y: float, size: tuple[int, int]) -> tuple[float, float]:
    """Where a pixel of the image is on the screen."""
    box = page.locator("#view").bounding_box()
    width, height = size
    return box["x"] + (x + 0.5) / width * box["width"], box["y"] + (y + 0.5) / height * box[
        "height"
    ]


def test_user_opens_filters_picks_decides_undoes_reloads_and_exports(
    serve: Serve, open_page: OpenPage, tmp_path: Path
) -> None:
    output = write_run(tmp_path)
    address = serve(output, "--reviewer", "anna")
    masks = [found for found in stored_masks(output) if found.image_id == "a.png"]
    page = open_page(address)

    ready(page, "a.png")
    assert page.locator("#shown").inner_text() == str(len(masks))

    # Filter: as the same masks as the export's filter would keep.
    set_slider(page, "iou", 0.8)
    kept = sum(found.predicted_iou >= np.float32(0.8) for found in masks)
    page.get_by_text(f"{kept} of {len(masks)} shown").wait_for()
    page.get_by_role("button", name="Reset").click()

    # Hover and pick: the smallest mask under the pointer first.
    under = [index for index, found in enumerate(masks) if found.mask[15, 25]]
    under.sort(key=lambda index: int(masks[index].mask.sum()))
    assert len(under) > 1
    page.mouse.move(*place_of(page, 25, 15, (128, 96)))
    tip = page.locator("#tip")
    assert f"Mask {under[0] + 1}" in tip.inner_text()
    assert f"{masks[under[0]].predicted_iou:.3f}" in tip.inner_text()
    page.mouse.down()
    page.mouse.up()
    assert option(page, under[0]).get_attribute("aria-selected") == "true"
    page.mouse.down()
    page.mouse.up()
    assert option(page, under[1]).get_attribute("aria-selected") == "true"
    page.keyboard.press("Escape")

    # Accept, reject, tag by keys and by buttons.
    option(page, 3).click()
    page.keyboard.press("a")
    option(page, 8).click()
    page.get_by_role("button", name="Reject R").click()
    option(page, 4).click()
    page.keyboard.press("t")
    page.keyboard.type("<b>tag</b>")
    page.keyboard.press("Enter")
    page.keyboard.press("a")
    saved(page)
    page.get_by_role("option", name="accepted, tagged <b>tag</b>").wait_for()

    # Merge.
    option(page, 5).click()
    option(page, 6).click(modifiers=["Shift"])
    page.keyboard.press("m")
    page.get_by_role("option", name="Union of 2").wait_for()
    assert option(page, 5).is_hidden()
    saved(page)

    # Undo and redo, across what was done.
    for _ in range(3):
        page.keyboard.press("z")
    page.get_by_role("option", name="Union of 2").wait_for(state="detached")
    for _ in range(3):
        page.keyboard.press("Shift+Z")
    page.get_by_role("option", name="Union of 2").wait_for()
    option(page, 9).click()
    page.keyboard.press("a")
    page.get_by_role("button", name="Undo").click()
    saved(page)

    # Reviewed, and on to the next.
    page.locator("#masks").focus()
    page.keyboard.press("Enter")
    ready(page, "b/c d.png")
    assert page.locator("#done").inner_text() == "1"

    # Reload: everything is there again, and can still be undone.
    page.reload()
    ready(page, "b/c d.png")
    page.locator("#number").fill("4")
    page.keyboard.press("Enter")
    page.get_by_text("This image has no masks: decode error.").wait_for()
    page.keyboard.press("N")
    ready(page, "b/c d.webp")
    page.locator("#number").fill("1")
    page.keyboard.press("Enter")
    ready(page, "a.png")
    assert "reviewed" in page.locator("#facts").inner_text()
    assert option(page, 3).get_attribute("data-decision") == "accepted"
    assert option(page, 8).get_attribute("data-decision") == "rejected"
    assert option(page, 9).get_attribute("data-decision") == ""
    assert page.get_by_role("button", name="Undo").is_enabled()
    page.screenshot(path=SCREENSHOTS / "path.png")

    # Export keeps exactly the accepted.
    amg("export", "coco", output, tmp_path / "out.json", "--reviewed", "accepted")
    document = json.loads((tmp_path / "out.json").read_bytes())
    assert [entry["file_name"] for entry in document["images"]] == ["a.png"]
    found = document["annotations"]
    accepted = [masks[3].mask, masks[4].mask, masks[5].mask | masks[6].mask]
    assert [row["area"] for row in found] == [int(mask.sum()) for mask in accepted]
    assert [row["tags"] for row in found] == [[], ["<b>tag</b>"], []]
    assert found[2]["merged_from"] == [5, 6]


def test_keyboard_alone_is_enough(serve: Serve, open_page: OpenPage, tmp_path: Path) -> None:
    output = write_run(tmp_path)
    page = open_page(serve(output, "--reviewer", "anna", "--images", "a.png"))
    ready(page, "a.png")

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the masks"
    page.keyboard.press("Enter")
    for key in ("ArrowDown", "ArrowDown", "Space", "ArrowDown", "Space", "m"):
        page.keyboard.press(key)
    page.get_by_role("option", name="Union of 2").wait_for()
    page.keyboard.press("ArrowDown")
    assert page.locator("#masks").get_attribute("aria-activedescendant") is not None
    page.keyboard.press("?")
    assert page.get_by_role("dialog").is_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("Shift+R")
    saved(page)
    assert page.locator("[data-decision=rejected]").count() == 8

    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input')].filter((one) =>
            !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length))
            .map((one) => one.id)"""
    )
    assert unnamed == []


def test_hostile_names_are_text(serve: Serve, open_page: OpenPage, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>&amp;'\".png"
    (tmp_path / "in").mkdir()
    Image.new("RGB", (32, 24), "teal").save(tmp_path / "in" / name)
    plan = plan_photos(tmp_path / "in", tmp_path / "run")
    commit_blobs(plan, masks=3, size=(24, 32))

    page = open_page(serve(tmp_path / "run"))

    ready(page, name)
    page.get_by_placeholder("Find an image").fill("IMG SRC")
    page.get_by_role("option", name=name).wait_for()
    assert page.locator("img").count() == 1


def test_token_opens_the_page_and_stays_out_of_the_address(
    serve: Serve, open_page: OpenPage, tmp_path: Path
) -> None:
    address = serve(write_run(tmp_path), "--token", "t" * 20)
    assert "?token=" in address

    page = open_page(address)

    ready(page, "a.png")
    assert "token" not in page.url
    other = open_page(address.partition("?")[0])
    assert "Open the address" in other.inner_text("body")


def test_decision_that_cannot_be_saved_is_kept_and_tried_again(
    serve: Serve, open_page: OpenPage, tmp_path: Path
) -> None:
    page = open_page(serve(write_run(tmp_path), "--reviewer", "anna"))
    ready(page, "a.png")
    page.route("**/changes", lambda route: route.abort())
    option(page, 1).click()
    page.keyboard.press("a")
    page.get_by_role("button", name="Try again").wait_for()
    assert option(page, 1).get_attribute("data-decision") == "accepted"

    page.unroute("**/changes")
    page.get_by_role("button", name="Try again").click()

    saved(page)
    log = (tmp_path / "run" / "_amg" / "reviews" / "anna.jsonl").read_text()
    assert log.count('"accepted"') == 1


def commit_blobs(plan: Plan, *, masks: int, size: tuple[int, int]) -> None:
    """Commit shards whose images have round masks of a size; small, for what is not measured."""
    from dataclasses import replace

    from amg_pipeline.records import ImageResult
    from amg_pipeline.storage.mask_table import encode_table
    from tests.storage.doubles import make_record

    random = np.random.default_rng(0)
    for shard in plan.run_directory.shards(plan.stored):
        results = []
        for ref in shard.images:
            fields = [
                ndimage.gaussian_filter(random.standard_normal(size), 3) for _ in range(masks)
            ]
            records = tuple(make_record(field > np.quantile(field, 0.7)) for field in fields)
            blank = ImageResult(ref, "ok", width=size[1], height=size[0])
            results.append(replace(blank, masks=records))
        data = encode_table(results, plan.table_metadata)
        plan.run_directory.commit_shard(plan.stored, shard.shard_id, data)


@pytest.fixture(scope="module")
def large_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 photos of 1500 x 2250 pixels with 200 masks each."""
    folder = tmp_path_factory.mktemp("large")
    photos = folder / "in"
    photos.mkdir()
    noise = np.random.default_rng(0).standard_normal((3, HEIGHT // 10, WIDTH // 10))
    smooth = np.stack([ndimage.gaussian_filter(channel, 6) for channel in noise], axis=-1)
    pixels = np.uint8(np.clip(120 + 600 * smooth, 0, 255))
    photo = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    photo.save(photos / "000.jpg", quality=90)
    for number in range(1, IMAGES):
        os.link(photos / "000.jpg", photos / f"{number:03d}.jpg")
    plan = plan_photos(photos, folder / "run", shard_size=100)
    pool = _make_pool()
    for shard in plan.run_directory.shards(plan.stored):
        rows = _make_rows(shard.images, MASKS, pool, seed=shard.shard_id)
        data = encode_rows(rows, plan.table_metadata)
        plan.run_directory.commit_shard(plan.stored, shard.shard_id, data)
    return folder / "run"


#: Time from an input event to when the frame that shows it is done, for many places of a slider.
_REPAINT = """async ([key, places]) => {
    const slider = document.getElementById(`slider-${key}`);
    const times = [];
    for (const place of places) {
        await new Promise((resolve) => setTimeout(resolve, 30));
        const begin = performance.now();
        slider.value = place;
        slider.dispatchEvent(new Event('input', {bubbles: true}));
        await new Promise((resolve) => requestAnimationFrame(() => {
            const channel = new MessageChannel();
            channel.port1.onmessage = resolve;
            channel.port2.postMessage(0);
        }));
        times.push(performance.now() - begin);
    }
    return times;
}"""


def test_first_paint_and_sliders_are_quick(
    serve: Serve, open_page: OpenPage, large_run: Path
) -> None:
    page = open_page(serve(large_run))
    ready(page, "000.jpg")
    assert page.locator("#total").inner_text() == str(IMAGES)
    first_paint = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    masks_painted = page.evaluate("performance.getEntriesByName('masks-painted')[0].startTime")
    page.wait_for_timeout(1500)  # the neighbours are loaded ahead

    times: dict[str, list[float]] = {}
    for key, low, high in (("iou", 0.7, 1), ("stability", 0.9, 1), ("area", 2, 5)):
        places = np.linspace(low, high, 21).tolist()
        times[key] = page.evaluate(_REPAINT, [key, places])
        page.get_by_role("button", name="Reset").click()
    scripts = page.evaluate("performance.getEntriesByName('paint').map((one) => one.duration)")
    begin = page.evaluate("performance.now()")
    page.keyboard.press("ArrowRight")
    ready(page, "001.jpg")
    paged = page.evaluate("performance.getEntriesByName('masks-painted').at(-1).startTime") - begin
    page.screenshot(path=SCREENSHOTS / "large.png")

    print(f"\nfirst paint {first_paint:.0f} ms, masks painted {masks_painted:.0f} ms")
    print(f"next image {paged:.0f} ms; script of a repaint {statistics.median(scripts):.1f} ms")
    for key, values in times.items():
        print(
            f"slider {key}: least {min(values):.1f}, median {statistics.median(values):.1f}, "
            f"most {max(values):.1f} ms"
        )
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    assert first_paint < FIRST_PAINT_MS
    # Hiccups of a machine that others use as well are no slow page.
    assert statistics.median([value for values in times.values() for value in values]) < REPAINT_MS


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.skipif("AMG_REVIEW_RUN" not in os.environ, reason="AMG_REVIEW_RUN names a run to show")
def test_screenshots_of_a_run_with_photos(serve: Serve, open_page: OpenPage, scheme: str) -> None:
    """AMG_REVIEW_RUN=amg-demo/run make browser: the pictures of the documentation."""
    page = open_page(
        serve(Path(os.environ["AMG_REVIEW_RUN"]), "--reviewer", scheme), color_scheme=scheme
    )
    ready(page)
    page.screenshot(path=SCREENSHOTS / f"photos-{scheme}.png")
