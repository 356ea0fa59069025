"""A run with its photos, and its review page without a network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from amg_pipeline.config import ImageSettings
from amg_pipeline.decisions.reviewer_log import ReviewerLog
from amg_pipeline.review.app import make_app
from amg_pipeline.review.guard import Guard, HostNames
from amg_pipeline.review.pictures import Pictures
from amg_pipeline.review.session import ReviewSession
from amg_pipeline.storage.run_images import RunImages
from tests.export.stored_runs import write_run

HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="session")
def written_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def output(written_run: Path) -> Iterator[Path]:
    """A run of six images in shards of two, without reviews."""
    yield written_run
    shutil.rmtree(written_run / "_amg" / "reviews", ignore_errors=True)


@pytest.fixture
def session(output: Path) -> Iterator[ReviewSession]:
    with ReviewerLog.open(str(output), "anna") as log:
        yield ReviewSession(RunImages.open(str(output)), log, reviewer="anna", title="run")


def make_guarded(
    session: ReviewSession, *, bound: str = "127.0.0.1", token: str | None = None
) -> Guard:
    return make_app(
        session,
        Pictures(ImageSettings(), max_side=64),
        names=HostNames(bound, frozenset({"review.example"})),
        token=token,
    )


@pytest.fixture
def client(session: ReviewSession) -> TestClient:
    return TestClient(make_guarded(session), base_url=HERE)
