"""The page of a stored run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fsspec
import pytest

from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.local_runner import run_locally
from amg_pipeline.report.run_report import write_run_report
from amg_pipeline.selection import Selection
from tests.photo_runs import make_threshold_generator, plan_photos, write_photo, write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "in", 5)


@pytest.fixture
def out(photos: Path, tmp_path: Path) -> Path:
    """The output of a run over five photos, one of them damaged."""
    (photos / "001.png").write_bytes(b"")
    run_locally(plan_photos(photos, tmp_path / "out"), make_generator=make_threshold_generator)
    return tmp_path / "out"


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "images").glob("*.jpg"))


def text_of(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_page_shows_every_image_of_the_run(out: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    written = write_run_report(
        str(out), str(tmp_path / "page"), title="Holiday", on_image=seen.append
    )

    text = text_of(tmp_path / "page")
    assert written.page == str(tmp_path / "page" / "index.html")
    assert "<h1>Holiday</h1>" in text
    assert all(f"{number:03d}.png" in text for number in range(5))
    assert "The file must hold an image" in text
    assert len(pictures(tmp_path / "page")) == 2 * 4
    assert (written.images, written.failed, written.shown, written.not_shown) == (5, 1, 4, 0)
    assert (len(seen), sum(seen)) == (5, written.masks)
    # Times come from beside the run.
    assert "Slowest images" in text


def test_page_again_has_the_same_bytes(out: Path, tmp_path: Path) -> None:
    write_run_report(str(out), str(tmp_path / "one"), limit=2)
    write_run_report(str(out), str(tmp_path / "two"), limit=2)

    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) > 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_limit_bounds_the_sections_and_not_the_totals(out: Path, tmp_path: Path) -> None:
    written = write_run_report(str(out), str(tmp_path / "page"), limit=1)

    assert "1 image of 4 in each section" in text_of(tmp_path / "page")
    assert written.images == 5
    assert 1 <= written.shown <= 4
    assert write_run_report(str(out), str(tmp_path / "page"), limit=0).shown == 0
    assert pictures(tmp_path / "page") == []


def test_filters_hold_for_totals_and_pictures(out: Path, tmp_path: Path) -> None:
    whole = write_run_report(str(out), str(tmp_path / "whole"))

    few = write_run_report(
        str(out), str(tmp_path / "few"), selection=Selection(top_k=1, images=("*[02].png",))
    )

    assert (few.images, few.masks) == (2, 2)
    assert few.left_out > 0
    assert whole.masks > few.masks
    scripts = list((tmp_path / "few" / "images").glob("*.js"))
    assert len(scripts) == 2
    for script in scripts:
        data = json.loads(script.read_text().partition(",")[2].removesuffix(");\n"))
        assert len(data["masks"]) == 1


def test_page_of_a_run_that_goes_on(photos: Path, tmp_path: Path) -> None:
    plan_photos(photos, tmp_path / "out")

    written = write_run_report(str(tmp_path / "out"), str(tmp_path / "page"))

    assert (written.shards_done, written.images) == (0, 0)
    assert "The run is not finished: 0 of" in text_of(tmp_path / "page")
    assert pictures(tmp_path / "page") == []


def test_shards_that_were_given_up_are_named(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out")
    for reason in ("error", "given_up"):
        plan.run_directory.write_attempt(
            0, {"reason": reason, "error_type": "OddError", "error_message": "<it broke>"}
        )

    write_run_report(str(tmp_path / "out"), str(tmp_path / "page"))

    assert "1 shard given up" in text_of(tmp_path / "page")
    assert "OddError: &lt;it broke&gt;" in text_of(tmp_path / "page")


def test_page_reads_images_as_the_run_did(photos: Path, tmp_path: Path) -> None:
    write_photo(photos / "large.png", height=50, width=50)
    plan = plan_photos(photos, tmp_path / "out", "images.max_pixels=100")
    run_locally(plan, make_generator=make_threshold_generator)
    write_photo(photos / "000.png", height=50, width=50)

    written = write_run_report(str(tmp_path / "out"), str(tmp_path / "page"))

    text = text_of(tmp_path / "page")
    assert "too_large" in text
    assert "The photo cannot be shown: An image may have at most 100 pixels" in text
    assert written.not_shown == 1


def test_photos_that_are_gone_are_no_failure(out: Path, photos: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos)

    written = write_run_report(str(out), str(tmp_path / "page"))

    assert (written.shown, written.not_shown) == (4, 4)
    assert "The photo cannot be shown: An image must lie at its address" in text_of(
        tmp_path / "page"
    )


def test_run_and_page_on_a_store(out: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.put(f"{out}/", "/reports/out/", recursive=True)

    written = write_run_report("memory://reports/out", "memory://reports/page", title="x")
    write_run_report(str(out), str(tmp_path / "page"), title="x")

    assert written.page == "memory://reports/page/index.html"
    for path in (tmp_path / "page").rglob("*.*"):
        key = path.relative_to(tmp_path / "page").as_posix()
        assert memory.cat_file(f"/reports/page/{key}") == path.read_bytes()
    memory.rm("/reports", recursive=True)


def test_damaged_shard_is_named_as_what_it_is(out: Path, tmp_path: Path) -> None:
    shard = min((out / "masks").iterdir())
    shard.write_bytes(shard.read_bytes()[:-40])

    with pytest.raises(StorageError, match="Find the damaged one with `amg verify`"):
        write_run_report(str(out), str(tmp_path / "page"))

    assert not (tmp_path / "page" / "index.html").exists()


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="OUTPUT must be the output of a run"):
        write_run_report(str(tmp_path), str(tmp_path / "page"))


def test_output_itself_is_no_place_for_a_page(out: Path) -> None:
    before = sorted(out.rglob("*"))

    with pytest.raises(ConfigError, match="Choose another place"):
        write_run_report(str(out), str(out))

    assert sorted(out.rglob("*")) == before
