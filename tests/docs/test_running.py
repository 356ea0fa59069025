"""Runs what README and docs tell people to run; `make docs-test`.

A page's blocks run in order in a folder with two small photos in `photos/`, one in
`~/photos/holiday`, and their masks in `masks/` and `masks-of-holiday/`. The Python blocks of a page
share their names, as in a notebook.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from amg_pipeline.assets import PHOTOS_FOLDER
from tests.docs.blocks import ROOT, RUNNABLE, Block, all_blocks

pytestmark = [pytest.mark.docs, pytest.mark.timeout(600)]

_SESSION = Path(__file__).parent / "python_session.py"
_LONGEST_SIDE = 200
#: As `amg`, with a coarse grid where a command chooses none: masks cost what points cost.
_PROGRAM = """#!/bin/bash
if [[ $1 =~ ^(run|plan)$ && ! "$*" =~ points_per_side|--config ]]; then
    set -- "$@" --set amg.points_per_side=10
fi
exec {python} -m amg_pipeline.cli "$@"
"""

BY_PAGE: dict[str, list[Block]] = {}
for _block in all_blocks():
    if _block.reason is None and _block.language in RUNNABLE:
        BY_PAGE.setdefault(_block.page, []).append(_block)


@dataclass(frozen=True)
class Place:
    """Where pages run: always the same path, because a run knows its input by it."""

    folder: Path
    template: Path

    def environment(self) -> dict[str, str]:
        path = f"{self.folder / '.venv' / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        return {
            **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
            "PATH": path,
            "HOME": str(self.folder / "home"),
            "PYTHONPATH": str(ROOT),
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "MPLBACKEND": "agg",
        }

    def renew(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.template, self.folder, symlinks=True)


def write_photos(folder: Path, names: tuple[str, ...]) -> None:
    folder.mkdir(parents=True)
    for name in names:
        with Image.open(Path(str(PHOTOS_FOLDER)) / name) as photo:
            photo.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
            photo.save(folder / name)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    base = tmp_path_factory.mktemp("docs")
    made = Place(base / "work", base / "template")
    write_photos(made.folder / "photos", ("cat.jpg", "coins.jpg"))
    write_photos(made.folder / "home" / "photos" / "holiday", ("coffee.jpg",))
    # README's commands name the environment that `make` creates.
    program = made.folder / ".venv" / "bin" / "amg"
    program.parent.mkdir(parents=True)
    program.write_text(_PROGRAM.format(python=shlex.quote(sys.executable)))
    program.chmod(0o755)
    shell("amg run photos masks --local; amg run ~/photos/holiday masks-of-holiday --local", made)
    made.folder.rename(made.template)
    return made


def shell(code: str, place: Place) -> None:
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=place.folder,
        env=place.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{code}\n{ended.stdout}\n{ended.stderr}"


class PythonSession:
    """A process whose blocks see each other's names."""

    def __init__(self, place: Place) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_SESSION)],
            cwd=place.folder,
            env=place.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, block: Block) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{len(block.code)} {block}\n{block.code}")
        self._process.stdin.flush()
        output = []
        for line in self._process.stdout:
            if line in ("<<done>>\n", "<<failed>>\n"):
                break
            output.append(line)
        assert line == "<<done>>\n", "".join(output)

    def close(self) -> None:
        self._process.communicate()


@pytest.fixture
def python(place: Place) -> Iterator[list[PythonSession]]:
    """At most one session of a page, opened by its first block of Python."""
    opened: list[PythonSession] = []
    yield opened
    for session in opened:
        session.close()


def query(block: Block, place: Place) -> None:
    import duckdb

    code = block.code.replace("FROM '", f"FROM '{place.folder}/")
    assert duckdb.sql(code).fetchall() is not None


@pytest.mark.parametrize("page", BY_PAGE)
def test_page_runs(page: str, place: Place, python: list[PythonSession]) -> None:
    place.renew()
    for block in BY_PAGE[page]:
        if block.language == "bash":
            shell(block.code, place)
        elif block.language == "sql":
            query(block, place)
        else:
            if not python:
                python.append(PythonSession(place))
            python[0].run(block)
