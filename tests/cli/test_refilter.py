"""`amg refilter` on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Amg
from tests.refilter.disc_runs import run_discs, write_images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("discs")
    return run_discs(write_images(folder / "in"), folder / "run")


def test_refilter_makes_a_finished_run(amg: Amg, run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    ended = amg("refilter", run, new, "--set", "amg.pred_iou_thresh=0.9", "--disjoint")

    assert ended.code == 0, ended.err
    assert ended.out.startswith("3 images, ")
    assert ended.last_line == f"output: {new}"
    assert (new / "_SUCCESS").exists()
    assert amg("verify", new).out == "2 shards of 2 committed and sound\n"


def test_unfinished_run_is_refiltered_with_a_note(amg: Amg, tmp_path: Path) -> None:
    output = run_discs(write_images(tmp_path / "in"), tmp_path / "run")
    max((output / "masks").iterdir()).unlink()

    ended = amg("refilter", output, tmp_path / "new", "--set", "amg.min_area=5")

    assert ended.code == 0
    assert "1 of 2 shards are done in NEW" in ended.out
    assert not (tmp_path / "new/_SUCCESS").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--set", "amg.box_nms_thresh=0.2"], "might have to come back"),
        (["--set", "amg.pred_iou_tresh=0.9"], "Did you mean amg.pred_iou_thresh"),
        (["--max-iou", "2"], "max_iou must lie in"),
    ],
)
def test_what_cannot_be_had_is_refused_with_the_reason(
    amg: Amg, run: Path, tmp_path: Path, words: list[str], reason: str
) -> None:
    ended = amg("refilter", run, tmp_path / "new", *words)

    assert ended.code == 2
    assert reason in ended.err
    assert not (tmp_path / "new").exists()
