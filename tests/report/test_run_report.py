"""The page of a stored run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from amg_pipeline.errors import ConfigError, StorageError, TransientStorageError
from amg_pipeline.local_runner import run_locally
from amg_pipeline.report import run_report
from amg_pipeline.report.run_report import write_run_report
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


def pictures(page: Path) -> list[str]:
    return sorted(path.name for path in (page.parent / "images").iterdir())


def test_page_shows_every_image_of_the_run(out: Path, tmp_path: Path) -> None:
    page = write_run_report(str(out), tmp_path / "page", title="Holiday")

    text = page.read_text(encoding="utf-8")
    assert page == tmp_path / "page" / "index.html"
    assert "<h1>Holiday</h1>" in text
    assert all(f"{number:03d}.png" in text for number in range(5))
    assert "decode_error: The file must hold an image" in text
    assert len(pictures(page)) == 2 * 4


def test_page_with_a_limit_counts_the_rest(out: Path, tmp_path: Path) -> None:
    page = write_run_report(str(out), tmp_path / "page", title="Holiday", limit=1)

    assert pictures(page) == ["00000-masks.jpg", "00000-photo.jpg"]
    assert "4 more images not shown here" in page.read_text(encoding="utf-8")


def test_page_of_a_run_that_goes_on(photos: Path, tmp_path: Path) -> None:
    plan_photos(photos, tmp_path / "out")

    page = write_run_report(str(tmp_path / "out"), tmp_path / "page", title="Nothing yet")

    assert pictures(page) == []


def test_page_reads_images_as_the_run_did(photos: Path, tmp_path: Path) -> None:
    write_photo(photos / "large.png", height=50, width=50)
    plan = plan_photos(photos, tmp_path / "out", "images.max_pixels=100")
    run_locally(plan, make_generator=make_threshold_generator)
    write_photo(photos / "000.png", height=50, width=50)

    page = write_run_report(str(tmp_path / "out"), tmp_path / "page", title="Small ones")

    text = page.read_text(encoding="utf-8")
    assert "too_large: An image may have at most 100 pixels" in text
    assert "the photo cannot be shown: An image may have at most 100 pixels" in text


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (TransientStorageError("the store did not answer"), "the store did not answer"),
        (ConfigError("no such scheme"), "no such scheme"),
    ],
    ids=["transient", "scheme"],
)
def test_photo_that_cannot_be_read_now_gets_a_card_that_says_so(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, shown: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(run_report, "load_image", fail)

    page = write_run_report(str(out), tmp_path / "page", title="Offline")

    assert f"the photo cannot be shown: {shown}" in page.read_text(encoding="utf-8")
    assert pictures(page) == []


def test_photos_that_are_gone_are_no_failure(out: Path, photos: Path, tmp_path: Path) -> None:
    shutil.rmtree(photos)

    page = write_run_report(str(out), tmp_path / "page", title="Gone")

    assert page.read_text(encoding="utf-8").count("the photo cannot be shown") == 4


def test_damaged_shard_is_named_as_what_it_is(out: Path, tmp_path: Path) -> None:
    shard = min((out / "masks").iterdir())
    shard.write_bytes(shard.read_bytes()[:-40])

    with pytest.raises(StorageError, match="Find the damaged one with `amg verify`"):
        write_run_report(str(out), tmp_path / "page", title="Damaged")

    assert not (tmp_path / "page" / "index.html").exists()


def test_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="OUTPUT must be the output of a run"):
        write_run_report(str(tmp_path), tmp_path / "page", title="None")
