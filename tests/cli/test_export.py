"""`amg export` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from amg_pipeline.cli.export import _FORMATS
from amg_pipeline.export.formats import FORMATS
from tests.cli.conftest import Amg
from tests.export.stored_runs import write_run


@pytest.fixture(scope="module")
def run_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))


def test_command_line_knows_all_formats() -> None:
    assert list(_FORMATS) == list(FORMATS)


def test_export_writes_and_sums_up(amg: Amg, run_output: Path, tmp_path: Path) -> None:
    dest = tmp_path / "out.json"
    ended = amg(
        "export", "coco", run_output, dest, "--as", "polygon", "--top-k", 5, "--images", "[ab]*"
    )

    assert ended.code == 0, ended.err
    assert ended.last_line == f"3 images, 15 masks (15 left out by filters); coco: {dest}"
    assert "note: 1 images have no masks and were left out: decode_error" in ended.out
    assert "masks had holes" in ended.out
    assert len(json.loads(dest.read_text())["annotations"]) == 15


def test_decisions_of_people_filter_masks(amg: Amg, run_output: Path, tmp_path: Path) -> None:
    log = run_output / "_amg" / "reviews" / "anna.jsonl"
    log.parent.mkdir()
    log.write_text('{"image_id":"a.png","row":0,"change":{"is_done":true}}\n')
    words = ("export", "coco", run_output, tmp_path / "out.json", "--reviewed", "accepted")

    ended = amg(*words, "--reviewer", "anna")

    assert ended.code == 0, ended.err
    assert ended.last_line.startswith("1 images, 0 masks (10 left out by filters)")
    assert "note: 4 images were left out that nobody has reviewed" in ended.out
    assert "bert" in amg(*words, "--reviewer", "bert", "--overwrite").err


def test_unfinished_run_is_exported_with_a_note(amg: Amg, tmp_path: Path) -> None:
    output = write_run(tmp_path)
    max((output / "masks").iterdir()).unlink()

    ended = amg("export", "sa1b", output, tmp_path / "out")

    assert ended.code == 0
    assert "note: the run is not finished, 2 of 3 shards are" in ended.out


def test_candidates_are_exported_with_a_note(amg: Amg, tmp_path: Path) -> None:
    output = write_run(tmp_path, "amg.keep_candidates=true")

    assert "amg refilter" in amg("export", "coco", output, tmp_path / "x.json").out


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["export", "voc", "OUTPUT", "DEST"], id="format"),
        pytest.param(["export", "coco", "OUTPUT", "DEST", "--min-iou", "7"], id="range"),
        pytest.param(["export", "coco", "DEST", "DEST"], id="no-run"),
        pytest.param(["export", "coco", "OUTPUT", "OUTPUT"], id="dest-in-use"),
    ],
)
def test_wrong_usage_touches_nothing(
    amg: Amg, run_output: Path, tmp_path: Path, words: list[str]
) -> None:
    places = {"OUTPUT": run_output, "DEST": tmp_path / "new"}

    ended = amg(*(places.get(word, word) for word in words))

    assert ended.code == 2
    assert not (tmp_path / "new").exists()
