"""A local run that is killed anywhere, and resumed."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amg_pipeline.errors import StorageError
from amg_pipeline.local_runner import run_locally
from amg_pipeline.outcome import RunOutcome
from amg_pipeline.planning import Plan
from amg_pipeline.records import ImageResult
from amg_pipeline.storage.local_files import LocalFiles
from amg_pipeline.storage.object_store import ObjectStore
from amg_pipeline.storage.run_directory import RunDirectory
from tests.photo_runs import (
    make_threshold_generator,
    plan_photos,
    stored_masks,
    write_photos,
)
from tests.storage.doubles import EAGER, Killed, MortalFiles

Pixels = NDArray[np.uint8]
ROOT = Path(__file__).parents[1]

ROOT = Path(__file__).parents[1]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "in", 7)


def run(plan: Plan, **options: Any) -> RunOutcome:
    return run_locally(plan, **{"make_generator": make_threshold_generator, **options})


def summary_of(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "_amg" / "summary.json").read_bytes()))


class FullAround(LocalFiles):
    """A disk that is full before or after one of the writes, counted as `MortalFiles` does."""

    def __init__(self, root: str, *, kill_at: int) -> None:
        super().__init__(root)
        self._left = kill_at
        self.was_full = False

    def put(self, key: str, data: bytes) -> None:
        self._step()
        super().put(key, data)
        self._step()

    def _step(self) -> None:
        self._left -= 1
        if self._left == -1:
            self.was_full = True
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def disturb(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch, files: LocalFiles
) -> BaseException | None:
    """Run the whole command on a store that fails; give what ended it."""
    with monkeypatch.context() as patch:
        directory = RunDirectory(ObjectStore(files, retry=EAGER))
        patch.setattr(RunDirectory, "open", lambda uri, **_: directory)
        try:
            run(plan_photos(photos, out))
        except (Killed, StorageError) as error:
            return error
    return None


@pytest.mark.parametrize(
    ("make_files", "steps"),
    [
        # A part of the plan, the plan, four shards with their statistics, summary, success.
        pytest.param(MortalFiles, 2 * (2 + 2 * 4 + 2), id="killed"),
        # The same without the plan, which is not put but created.
        pytest.param(FullAround, 2 * (1 + 2 * 4 + 2), id="disk-full"),
    ],
)
def test_disturbed_at_any_write_and_resumed_gives_the_same_bytes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_files: Any, steps: int
) -> None:
    run(plan_photos(photos, tmp_path / "undisturbed"))
    expected = stored_masks(tmp_path / "undisturbed")
    assert len(expected) == 4
    ended = []
    for step in range(steps + 1):
        out = tmp_path / f"disturbed-{step}"
        error = disturb(photos, out, monkeypatch, make_files(str(out), kill_at=step))
        ended.append(error is not None)
        assert stored_masks(out).items() <= expected.items(), f"step {step}"

        outcome = run(plan_photos(photos, out))

        assert stored_masks(out) == expected, f"step {step}"
        assert outcome.is_settled
        assert (out / "_SUCCESS").exists()
        assert summary_of(out)["images"] == {"ok": 7}
    # The last one was beyond the last step; statistics that cannot be written disturb nobody.
    unnoticed = 0 if make_files is MortalFiles else 2 * 4
    assert ended[-1] is False
    assert sum(ended) == steps - unnoticed


_KILLS_ITSELF = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from amg_pipeline.local_runner import run_locally
from tests.photo_runs import plan_photos, threshold_masks

left = int(sys.argv[4])

def generate(pixels):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return threshold_masks(pixels)

run_locally(plan_photos(sys.argv[2], sys.argv[3]), make_generator=lambda config: generate)
"""


def test_process_killed_at_a_random_image_and_resumed_gives_the_same_bytes(
    photos: Path, tmp_path: Path
) -> None:
    run(plan_photos(photos, tmp_path / "undisturbed"))
    expected = stored_masks(tmp_path / "undisturbed")
    done_before = random.Random(7).randrange(1, 6)
    arguments = [str(ROOT), str(photos), str(tmp_path / "out"), str(done_before)]

    killed = subprocess.run(
        [sys.executable, "-c", _KILLS_ITSELF, *arguments], capture_output=True, timeout=120
    )

    assert killed.returncode == -9, killed.stderr
    assert len(stored_masks(tmp_path / "out")) == done_before // 2
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    seen: list[ImageResult] = []
    run(plan_photos(photos, tmp_path / "out"), on_image=seen.append)
    assert stored_masks(tmp_path / "out") == expected
    assert len(seen) == 7 - done_before // 2 * 2


def test_interrupt_is_not_an_attempt(photos: Path, tmp_path: Path) -> None:
    plan = plan_photos(photos, tmp_path / "out")

    def interrupt(result: ImageResult) -> None:
        if result.ref.image_id == "002.png":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan, on_image=interrupt)

    assert plan.run_directory.committed(plan.stored) == {0}
    assert plan.run_directory.read_attempts(1) == []
    assert not (tmp_path / "out" / "_SUCCESS").exists()
