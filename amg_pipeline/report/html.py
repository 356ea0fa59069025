"""One page that shows a run: totals, and a gallery of its images with their masks.

The page is a folder with `index.html` and `images/`. It asks nothing of the network, runs from
disk, and treats everything that a run stored (names, messages) as text.
"""

from __future__ import annotations

import math
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amg_pipeline.errors import ConfigError, ImageDecodeError, ImageError
from amg_pipeline.report.overlays import draw_masks, shrink

Row = Mapping[str, Any]
PixelLoader = Callable[[str], NDArray[np.uint8]]

#: Long side of the page's pictures in pixels, and their JPEG quality.
MAX_SIDE = 1280
JPEG_QUALITY = 86

_PAGE = "index.html"
_PARTIAL = "index.html.partial"
_PICTURES = "images"
_PICTURE = re.compile(r"[0-9]{5,}-(photo|masks)\.jpg")
#: What tells a page of ours from any other.
_MARK = '<meta name="generator" content="amg_pipeline">'
#: The mark lies in the first so many bytes.
_HEAD_BYTES = 1024


@dataclass(slots=True)
class _Totals:
    """Sums over all rows, also of those that the gallery does not show."""

    statuses: Counter[str] = field(default_factory=Counter)
    masks: int = 0
    masks_per_image: list[int] = field(default_factory=list)

    def add(self, row: Row) -> None:
        self.statuses[row["status"]] += 1
        self.masks += row["num_masks"]
        if row["status"] == "ok":
            self.masks_per_image.append(row["num_masks"])


def write_report(
    rows: Iterable[Row],
    destination: Path,
    *,
    load_pixels: PixelLoader,
    title: str = "Automatic masks",
    limit: int = 100,
) -> Path:
    """Write the page of a run.

    A photo that can no longer be read, or has another size than when its masks were made, gets a
    card that says so.

    Args:
        rows: The mask table's rows as plain dicts, in the order in which they are to be shown.
        destination: The page's folder; made if it is missing. An earlier page in it is replaced,
            its pictures are removed, and nothing else is touched.
        load_pixels: Reads the image at a row's `uri` as uint8 `(height, width, 3)` RGB, upright
            as it was for the run; raises an `ImageError` where it cannot.
        title: The page's heading.
        limit: Number of images in the gallery; the totals always count every row.

    Returns:
        The path of `index.html`.

    Raises:
        ConfigError: If the folder holds something, but no page that this function wrote.
        StorageError: If a row's masks do not fit its size.
    """
    _refuse_foreign(destination)
    images = destination / _PICTURES
    images.mkdir(parents=True, exist_ok=True)
    for stale in _pictures(images):
        stale.unlink()
    totals = _Totals()
    cards = []
    for number, row in enumerate(rows):
        totals.add(row)
        if number < limit:
            cards.append(_card(row, number, images, load_pixels))
    page = destination / _PAGE
    # Renamed into place: whoever has the page open never loads half of it.
    partial = destination / _PARTIAL
    partial.write_text(_page(title, totals, cards), encoding="utf-8")
    partial.replace(page)
    return page


def _refuse_foreign(destination: Path) -> None:
    page = destination / _PAGE
    if page.is_file():
        with page.open("rb") as file:
            is_ours = _MARK.encode() in file.read(_HEAD_BYTES)
    else:
        # Nothing, or what a writer left that was killed before its page was complete.
        images = destination / _PICTURES
        entries = {path.name for path in destination.iterdir()} if destination.is_dir() else set()
        pictures = set(images.iterdir()) if images.is_dir() else set()
        is_ours = entries <= {_PICTURES, _PARTIAL} and pictures == set(_pictures(images))
    if not is_ours:
        raise ConfigError(
            "The page's folder must be empty or hold an earlier page of this program. "
            f"Received: {destination}, which holds something else. Choose another folder"
        )


def _pictures(images: Path) -> list[Path]:
    """List the pictures of an earlier page."""
    if not images.is_dir():
        return []
    return [path for path in images.iterdir() if _PICTURE.fullmatch(path.name)]


def _card(row: Row, number: int, images: Path, load_pixels: PixelLoader) -> str:
    if row["status"] != "ok":
        return _failure(row, f"{row['status']}: {row['error_message'] or row['error_type']}")
    try:
        pixels = load_pixels(row["uri"])
        _check_size(row, pixels)
    except ImageError as error:
        return _failure(row, f"{row['num_masks']} masks, but the photo cannot be shown: {error}")
    photo = f"{number:05d}-photo.jpg"
    overlay = f"{number:05d}-masks.jpg"
    _save(shrink(pixels, max_side=MAX_SIDE), images / photo)
    picture = draw_masks(pixels, row["masks"], max_side=MAX_SIDE)
    _save(picture, images / overlay)
    height, width = picture.shape[:2]
    name = escape(str(row["image_id"]))
    return (
        f'<figure class="card" data-name="{name}" data-photo="images/{photo}">'
        f'<a href="images/{overlay}" title="Enlarge">'
        f'<img src="images/{overlay}" width="{width}" height="{height}" loading="lazy" '
        f'alt="{_count(row["num_masks"], "mask")} on {name}"></a>'
        f'<figcaption><span class="name" title="{name}">{name}</span>'
        f'<span class="count">{_count(row["num_masks"], "mask")}</span>'
        f'<span class="facts">{escape(_facts(row))}</span></figcaption></figure>'
    )


def _failure(row: Row, message: str) -> str:
    name = escape(str(row["image_id"]))
    return (
        '<figure class="card failed">'
        f'<div class="message">{escape(message)}</div>'
        f'<figcaption><span class="name" title="{name}">{name}</span></figcaption></figure>'
    )


def _check_size(row: Row, pixels: NDArray[np.uint8]) -> None:
    expected = (row["height"], row["width"])
    if pixels.shape[:2] != expected:
        raise ImageDecodeError(
            f"The photo must be {expected[1]} x {expected[0]} pixels, as when its masks were made. "
            f"Received: {pixels.shape[1]} x {pixels.shape[0]}; it was replaced since"
        )


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY, optimize=True)


def _facts(row: Row) -> str:
    size = f"{row['width']} × {row['height']}"
    if not row["masks"]:
        return size
    ious = [mask["predicted_iou"] for mask in row["masks"]]
    stabilities = [mask["stability_score"] for mask in row["masks"]]
    return f"{size} · predicted IoU {_span(ious)} · stability {_span(stabilities)}"


def _span(values: list[float]) -> str:
    # An empty mask has no stability: the ratio of two areas of zero.
    numbers = [value for value in values if not math.isnan(value)]
    return f"{min(numbers):.2f}–{max(numbers):.2f}" if numbers else "–"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _tiles(totals: _Totals) -> str:
    failed = {name: n for name, n in sorted(totals.statuses.items()) if name != "ok"}
    per_image = totals.masks_per_image
    facts = [
        ("images", f"{totals.statuses.total():,}"),
        ("masks", f"{totals.masks:,}"),
        ("median masks an image", f"{statistics.median(per_image):,.0f}" if per_image else "–"),
        ("most on one image", f"{max(per_image):,}" if per_image else "–"),
        *((name, f"{number:,}") for name, number in failed.items()),
    ]
    return "".join(f"<div><dd>{value}</dd><dt>{escape(name)}</dt></div>" for name, value in facts)


def _page(title: str, totals: _Totals, cards: list[str]) -> str:
    left_out = totals.statuses.total() - len(cards)
    note = f"<p>{_count(left_out, 'more image')} not shown here.</p>" if left_out else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{_MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{_asset("page.css")}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<dl>{_tiles(totals)}</dl>
</header>
<main>
{"".join(f"{card}{chr(10)}" for card in cards)}</main>
<footer>{note}</footer>
<dialog aria-label="Enlarged image">
<div class="bar"><span class="name"></span><button type="button" class="close">Close</button></div>
<div class="pair">
<figure><figcaption>masks</figcaption><img class="masks" alt="The image with its masks"></figure>
<figure><figcaption>original</figcaption><img class="photo" alt="The image alone"></figure>
</div>
</dialog>
<script>
{_asset("page.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files("amg_pipeline.report").joinpath(name).read_text(encoding="utf-8")
