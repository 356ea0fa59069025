"""`ray job submit` from end to end, against a head on this machine. Run by `make jobs`."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from amg_pipeline import load_masks
from tests.jobs.local_head import ROOT, Ended, LocalHead, local_head
from tests.photo_runs import write_photos

pytestmark = pytest.mark.ray_job

NUM_GPUS = 2
StubJob = Callable[..., Ended]


@pytest.fixture(scope="module")
def head() -> Iterator[LocalHead]:
    with local_head(num_cpus=2, num_gpus=NUM_GPUS) as running:
        yield running


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six photos."""
    return write_photos(tmp_path / "photos", 6)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """What each worker saw of the GPUs."""
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def stub_job(head: LocalHead, tmp_path: Path, notes: Path) -> StubJob:
    """Submit `amg run` with a function in place of the model."""
    folder = tmp_path / "job"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("stub_job.py"), folder)
    # The package, where it is not installed.
    environment = json.dumps({"env_vars": {"PYTHONPATH": str(ROOT)}})

    def submit(stub: str, *words: object, ray_words: tuple[str, ...] = ()) -> Ended:
        job = ("python", "stub_job.py", stub, notes, *words)
        options = ("--runtime-env-json", environment, *ray_words)
        return head.submit(*options, "--", *job, folder=folder)

    return submit


def _objects(out: Path) -> dict[str, int]:
    """Give the committed shards, with the times at which they were written."""
    return {file.name: file.stat().st_mtime_ns for file in (out / "masks").glob("part-*.parquet")}


def _seen(notes: Path) -> set[str]:
    return {file.read_text() for file in notes.iterdir()}


def test_script_submits_a_run_of_the_packaged_model_that_succeeds(
    head: LocalHead, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    ended = head.run(
        ROOT / "jobs/submit.sh",
        *(photos, out, "--config", "jobs/configs/tiny.yaml"),
        *("--gpus-per-worker", 0, "--set", "amg.points_per_side=2", "--shard-size", 3),
    )

    assert ended.code == 0, ended.log
    assert "succeeded" in ended.log
    assert "6 images, " in ended.log
    assert load_masks(str(out)).count_rows() == 6
    assert (out / "_SUCCESS").exists()


def test_submission_without_a_runtime_environment_fails_with_our_message_for_bad_settings(
    head: LocalHead, photos: Path, tmp_path: Path
) -> None:
    words = ("python", "jobs/generate_masks.py", photos, tmp_path / "out")

    ended = head.submit("--", *words, "--set", "amg.pred_iou=0.9", folder=ROOT)

    assert ended.code == 1
    assert "exit code 2" in ended.log
    assert "pred_iou_thresh" in ended.log, "the nearest valid name"
    assert not (tmp_path / "out").exists()


def test_shard_that_is_given_up_fails_the_job_and_the_next_job_does_it(
    stub_job: StubJob, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = (photos, out, "--shard-size", 2, "--gpus-per-worker", 0, "--workers", 1)

    failed = stub_job("failing", *words)
    committed = _objects(out)

    assert failed.code == 1
    assert "exit code 3" in failed.log
    # The first two photos and the last two are low ones.
    assert "2 shards given up (number 0, 2; " in failed.log
    assert len(committed) == 1
    assert not (out / "_SUCCESS").exists()

    mended = stub_job("good", *words)

    assert mended.code == 0, mended.log
    assert len(_objects(out)) == 3
    assert committed.items() <= _objects(out).items()


def test_job_that_is_stopped_goes_on_when_it_is_submitted_again(
    head: LocalHead, stub_job: StubJob, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = (photos, out, "--shard-size", 1, "--gpus-per-worker", 0, "--workers", 1)

    stub_job("slow", *words, ray_words=("--no-wait", "--submission-id", "stopped"))
    give_up_at = time.monotonic() + 60
    while not _objects(out) and time.monotonic() < give_up_at:
        time.sleep(0.1)
    head.call("job", "stop", "stopped")
    committed = _objects(out)

    assert 0 < len(committed) < 6
    assert "STOPPED" in head.call("job", "status", "stopped").log.upper()

    again = stub_job("slow", *words)

    assert again.code == 0, again.log
    assert f"{len(committed)} done, {6 - len(committed)} to do" in again.log
    assert len(_objects(out)) == 6
    assert committed.items() <= _objects(out).items()


def test_each_worker_sees_its_own_gpu_only(
    stub_job: StubJob, photos: Path, tmp_path: Path, notes: Path
) -> None:
    words = (photos, tmp_path / "out", "--shard-size", 1, "--workers", NUM_GPUS)

    ended = stub_job("slow", *words, "--gpus-per-worker", 1)

    assert ended.code == 0, ended.log
    assert _seen(notes) == {"0", "1"}


def test_workers_that_share_a_gpu_see_the_same_one(
    stub_job: StubJob, photos: Path, tmp_path: Path, notes: Path
) -> None:
    words = (photos, tmp_path / "out", "--shard-size", 1, "--workers", 2)

    ended = stub_job("slow", *words, "--gpus-per-worker", 0.5)

    assert ended.code == 0, ended.log
    assert len(list(notes.iterdir())) == 2
    assert _seen(notes) == {"0"}


def test_workers_without_a_gpu_see_none(
    stub_job: StubJob, photos: Path, tmp_path: Path, notes: Path
) -> None:
    words = (photos, tmp_path / "out", "--workers", 1, "--gpus-per-worker", 0)

    ended = stub_job("good", *words)

    assert ended.code == 0, ended.log
    assert _seen(notes) == {"-1"}
