"""The command line in this process: exit code, standard output, standard error."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from amg_pipeline import planning
from amg_pipeline.cli import main, runs
from amg_pipeline.config import WorkerSettings
from amg_pipeline.distributed import cluster, driver
from amg_pipeline.local_runner import run_locally
from amg_pipeline.shard_runner import MaskGenerator
from amg_pipeline.telemetry import ROOT_LOGGER
from tests.photo_runs import (
    accept,
    digest,
    failing,
    make_threshold_generator,
    threshold_masks,
    write_photos,
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return (self.out + self.err).rstrip("\n").rpartition("\n")[2]


Amg = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _put_process_back() -> Iterator[None]:
    """A command configures logging and signals for the process that it expects to own."""
    logger = logging.getLogger(ROOT_LOGGER)
    before = (logger.handlers, logger.level, logger.propagate)
    on_sigterm = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, on_sigterm)
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture
def amg(capsys: pytest.CaptureFixture[str]) -> Amg:
    """Run `amg ...` in this process."""

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        code = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def use_generator(monkeypatch: pytest.MonkeyPatch) -> Callable[[MaskGenerator], None]:
    """Let runs find masks with a function in place of the model, whose weights need not exist."""
    monkeypatch.setattr(planning, "_model_weights_digest", digest)
    monkeypatch.setattr(planning, "_check_model", accept)

    def use(generate: MaskGenerator) -> None:
        patched = partial(run_locally, make_generator=lambda config: generate)
        monkeypatch.setattr(runs, "run_locally", patched)

    return use


@pytest.fixture
def fake_model(use_generator: Callable[[MaskGenerator], None]) -> None:
    use_generator(threshold_masks)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Seven photos."""
    return write_photos(tmp_path / "in", 7)


@pytest.fixture
def half_done(
    amg: Amg, use_generator: Callable[[MaskGenerator], None], photos: Path, tmp_path: Path
) -> Path:
    """A run of 4 shards that was interrupted in the third; one image is damaged."""
    (photos / "001.png").write_bytes(b"")
    use_generator(failing(3, KeyboardInterrupt()))
    ended = amg("run", photos, tmp_path / "out", "--local", "--shard-size", 2)
    assert ended.code == 130
    return tmp_path / "out"


@pytest.fixture
def ray_is_real(monkeypatch: pytest.MonkeyPatch, local_ray: None) -> list[object]:
    """Let a run without `--local` go through Ray, with a function in place of the model.

    Returns what `connected` was asked for.
    """
    monkeypatch.setattr(planning, "_model_weights_digest", digest)
    monkeypatch.setattr(planning, "_check_model", accept)
    patched = partial(driver.run_distributed, make_generator=make_threshold_generator)
    monkeypatch.setattr(driver, "run_distributed", patched)
    asked: list[object] = []
    connect = cluster.connected

    def note(settings: WorkerSettings) -> AbstractContextManager[None]:
        asked.append(settings.address)
        return connect(settings)

    monkeypatch.setattr(cluster, "connected", note)
    return asked
