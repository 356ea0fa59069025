"""report and demo: pages to look at."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from amg_pipeline.cli import runs
from amg_pipeline.shard_runner import MaskGenerator
from tests.cli.conftest import Amg
from tests.photo_runs import write_photo

UseGenerator = Callable[[MaskGenerator], None]

pytestmark = pytest.mark.usefixtures("fake_model")


def test_report_writes_a_page(amg: Amg, half_done: Path, tmp_path: Path) -> None:
    ended = amg("report", half_done, tmp_path / "page", "--limit", 2)

    page = tmp_path / "page" / "index.html"
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[0] == "note: the run is not finished, 2 of 4 shards are"
    assert re.fullmatch(
        r"4 images, \d+ masks \(0 left out by filters\), 1 failed images; page: (.*)",
        ended.last_line,
    )
    assert ended.last_line.endswith(f"page: {page}")
    text = page.read_text(encoding="utf-8")
    assert f"Masks of {half_done}" in text
    assert "2 images of 3 in each section" in text
    assert list((tmp_path / "page" / "images").glob("*-masks.js"))


def test_report_takes_a_title_and_filters(
    amg: Amg, half_done: Path, photos: Path, tmp_path: Path
) -> None:
    (photos / "000.png").unlink()

    ended = amg(
        "report",
        half_done,
        tmp_path / "page",
        *("--title", "My <run>", "--images", "000.png", "--top-k", 1),
    )

    assert ended.out.splitlines()[1].startswith("note: 1 of 1 images in the gallery cannot be")
    assert ended.last_line.startswith("1 images, 1 masks (")
    text = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "<h1>My &lt;run&gt;</h1>" in text
    assert "Filtered: top k 1, images 000.png" in text


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["OUTPUT", "OUTPUT"], id="dest-in-use"),
        pytest.param(["NEW", "NEW"], id="no-run"),
        pytest.param(["OUTPUT", "NEW", "--min-iou", "7"], id="range"),
        pytest.param(["OUTPUT", "NEW", "--limit", "-1"], id="limit"),
        pytest.param(["OUTPUT", "nope://x"], id="scheme"),
    ],
)
def test_report_with_wrong_usage_touches_nothing(
    amg: Amg, half_done: Path, tmp_path: Path, words: list[str]
) -> None:
    before = sorted(half_done.rglob("*"))
    places = {"OUTPUT": half_done, "NEW": tmp_path / "new"}

    ended = amg("report", *(places.get(word, word) for word in words))

    assert ended.code == 2, ended.err
    assert not (tmp_path / "new").exists()
    assert sorted(half_done.rglob("*")) == before


def test_report_to_a_place_that_cannot_be_written_is_one_line(
    amg: Amg, half_done: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    ended = amg("report", half_done, tmp_path / "file" / "page")

    assert ended.code == 1
    assert ended.err.startswith("amg: ")
    assert str(tmp_path / "file") in ended.err
    assert ended.err.count("\n") == 1


def test_demo_makes_masks_and_a_page(
    amg: Amg,
    ray_is_real: list[object],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "PHOTOS_FOLDER", photos)
    monkeypatch.chdir(tmp_path)

    ended = amg("demo")

    page = tmp_path / "amg-demo" / "report" / "index.html"
    assert ended.code == 0
    lines = ended.out.splitlines()
    assert lines[0].startswith("7 images, 0.0 MiB, 4 shards: 0 done, 4 to do")
    assert lines[1] == "Parquet: amg-demo/run/masks"
    assert lines[2] == f"page:    {page.as_uri()}"
    assert lines[3].startswith("7 images, ")
    assert "Masks of the sample photos" in page.read_text(encoding="utf-8")
    assert len(list((tmp_path / "amg-demo" / "run" / "masks").iterdir())) == 4
    assert amg("demo", "amg-demo").code == 0

    write_photo(photos / "more.png")
    monkeypatch.setattr(runs, "__version__", "99.0.0")
    assert "pass --force" in amg("demo", "amg-demo").err
    assert amg("demo", "amg-demo", "--force").out.startswith("8 images")
