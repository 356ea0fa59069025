"""`amg show` on the command line."""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Amg
from tests.export.stored_runs import BROKEN, EMPTY, IMAGES, write_run

NAME = "b/c d.png"


@pytest.fixture(scope="module")
def run_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))


@pytest.fixture(autouse=True)
def _no_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("agg")
    monkeypatch.chdir(tmp_path)


def test_show_writes_a_png_in_the_images_own_size(
    amg: Amg, run_output: Path, tmp_path: Path
) -> None:
    ended = amg("show", NAME, run_output, "--save", tmp_path / "x.png")

    assert ended.code == 0, ended.err
    assert ended.last_line == f"{NAME}: 10 masks; picture: {tmp_path / 'x.png'}"
    with Image.open(tmp_path / "x.png") as picture:
        assert (picture.height, picture.width) == IMAGES[NAME]


def test_show_without_a_display_says_where_the_picture_is(amg: Amg, run_output: Path) -> None:
    first = amg("show", NAME, run_output, "--top-k", 2)
    second = amg("show", NAME, run_output, "--no-borders", "--seed", 3)

    assert first.last_line == f"{NAME}: 2 masks; picture: c_d-masks.png"
    assert second.last_line.endswith("picture: c_d-masks-2.png")
    pictures = [np.asarray(Image.open(f"c_d-masks{n}.png")) for n in ("", "-2")]
    assert (pictures[0] != pictures[1]).any()


def test_show_without_matplotlib_still_writes(
    amg: Amg, run_output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    ended = amg("show", EMPTY, run_output)

    assert ended.last_line == f"{EMPTY}: 0 masks; picture: empty-masks.png"


def test_show_opens_a_window_where_there_is_one(
    amg: Amg, run_output: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from matplotlib import pyplot

    shown: list[Any] = []
    module = import_module("amg_pipeline.cli.show")
    monkeypatch.setattr(module, "_has_window", lambda: True)
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gcf()))

    ended = amg("show", NAME, run_output)

    assert ended.out == f"{NAME}: 10 masks\n"
    assert len(shown[0].axes[0].images) == 2
    assert list(tmp_path.iterdir()) == []


def test_show_without_the_photo_draws_on_grey(amg: Amg, tmp_path: Path) -> None:
    output = write_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "photos")

    ended = amg("show", "a.png", output, "--save", "a.png")

    assert ended.code == 0
    assert ended.out.startswith("note: the photo cannot be shown: An image must lie at its address")
    assert Path("a.png").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["c d", "OUTPUT"], "did you mean 'b/c d.png', 'b/c d.webp'?", id="like"),
        pytest.param(["<b>\n", "OUTPUT"], "one of the 6 images", id="unknown"),
        pytest.param([BROKEN, "OUTPUT"], "ended as decode_error", id="failed"),
        pytest.param(["a.png", "elsewhere"], "OUTPUT must be", id="no-run"),
        pytest.param(["a.png", "OUTPUT", "--save", "a.jpg"], "a .png file", id="ending"),
    ],
)
def test_wrong_usage_says_what_is_wrong(
    amg: Amg, run_output: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    ended = amg("show", *(str(run_output) if word == "OUTPUT" else word for word in words))

    assert ended.code == 2
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


def test_picture_that_cannot_be_written_is_an_error(amg: Amg, run_output: Path) -> None:
    ended = amg("show", "a.png", run_output, "--save", "nowhere/a.png")

    assert ended.code == 1
    assert "nowhere/a.png" in ended.err
