"""What all formats have in common: counts, filters, repeatable bytes, and no half files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from amg_pipeline.errors import ConfigError, StorageError
from amg_pipeline.export import coco
from amg_pipeline.export.formats import EMPTY, FORMATS, export_run
from amg_pipeline.export.settings import ExportSettings, ExportTally
from amg_pipeline.export.shapes import FILLED_HOLES
from amg_pipeline.selection import Selection
from amg_pipeline.storage.object_store import ObjectStore
from tests.export.stored_runs import BROKEN, IMAGES, stored_masks


def run_export(
    name: str, output: Path, dest: object, *, selection: Selection | None = None, **settings: Any
) -> ExportTally:
    return export_run(
        name,
        str(output),
        str(dest),
        selection=selection or Selection(),
        settings=ExportSettings(**settings),
    )


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", FORMATS)
def test_export_counts_and_repeats(name: str, run_output: Path, tmp_path: Path) -> None:
    stored = list(stored_masks(run_output))
    tally = run_export(name, run_output, tmp_path / "one")
    run_export(name, run_output, tmp_path / "two")

    assert (tally.images, tally.masks, tally.left_out) == (len(IMAGES), len(stored), 0)
    assert tally.failed == {"decode_error": 1}
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two") != {}


@pytest.mark.parametrize("name", FORMATS)
def test_export_to_a_store_gives_the_same_files(
    name: str, run_output: Path, tmp_path: Path
) -> None:
    run_export(name, run_output, tmp_path / "here")
    dest = f"memory://exports-{name}/dest"
    run_export(name, run_output, dest)
    store = ObjectStore.open(dest)
    here = files_below(tmp_path / "here")
    there = {info.key: store.read(info.key) for info in store.list()}

    assert there.keys() == here.keys()
    # LabelMe's files say where the image is, as seen from them.
    assert there == here or name == "labelme"


def test_filters_leave_out_and_count(run_output: Path, tmp_path: Path) -> None:
    selection = Selection(min_iou=0.8, min_area=100, images=("a.png", "empty.png"))
    tally = run_export("coco", run_output, tmp_path / "x.json", selection=selection)
    wanted = [
        mask
        for mask in stored_masks(run_output)
        if mask.image_id == "a.png" and mask.predicted_iou > 0.79 and mask.mask.sum() >= 100
    ]
    document = json.loads((tmp_path / "x.json").read_text())

    assert tally.images == 2
    assert tally.masks == len(document["annotations"]) == len(wanted)
    assert tally.left_out == 10 - len(wanted)
    assert BROKEN not in {image["file_name"] for image in document["images"]}


def test_filled_holes_are_counted_by_mask(run_output: Path, tmp_path: Path) -> None:
    holes = sum(mask.has_holes for mask in stored_masks(run_output))

    tally = run_export("coco", run_output, tmp_path / "out", shape="polygon")

    assert tally.notes[FILLED_HOLES] == holes > 0
    assert tally.notes[EMPTY] == 0


def test_dest_that_has_something_is_refused(run_output: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")

    with pytest.raises(ConfigError, match="must be empty"):
        run_export("sa1b", run_output, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_file_that_exists_is_refused_and_overwritten_on_demand(
    run_output: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "x.json"
    dest.write_text("mine")

    with pytest.raises(ConfigError, match="must not exist"):
        run_export("coco", run_output, dest)
    assert dest.read_text() == "mine"
    export_run(
        "coco",
        str(run_output),
        str(dest),
        selection=Selection(),
        settings=ExportSettings(),
        overwrite=True,
    )
    assert json.loads(dest.read_text())["images"]


@pytest.mark.parametrize("place", ["local", "memory"])
def test_export_that_fails_leaves_no_half_file(
    run_output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    dest = str(tmp_path / "out") if place == "local" else "memory://half/out"
    write = coco._annotations

    def fail_at_the_second(image: Any, number: int, *rest: Any) -> Any:
        if number == 2:
            raise StorageError("a shard is damaged")
        return write(image, number, *rest)

    monkeypatch.setattr(coco, "_annotations", fail_at_the_second)

    with pytest.raises(StorageError, match="damaged"):
        run_export("coco", run_output, dest)
    assert list(ObjectStore.open(dest).list()) == []
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("name", "settings", "fault"),
    [
        ("sa1b", {"shape": "polygon"}, "writes masks as mask"),
        ("png", {"with_images": True}, "no place for images"),
        ("yolo", {"image_root": "x"}, "names images by their ids"),
        ("voc", {}, "must be one of coco"),
    ],
)
def test_choice_that_a_format_does_not_have_is_refused(
    run_output: Path, tmp_path: Path, name: str, settings: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ConfigError, match=fault):
        run_export(name, run_output, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("settings", [{"tolerance": -1}, {"label": " "}, {"label": "a\nb"}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Received"):
        ExportSettings(**settings)


def test_output_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="load_masks needs the output"):
        run_export("coco", tmp_path, tmp_path / "out")
