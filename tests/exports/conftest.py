"""The same stored run as in the tests of exports; here, other people's programs read them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# FiftyOne would start its database, and others would look for news.
os.environ.setdefault("FIFTYONE_DISABLE_SERVICES", "1")
os.environ.setdefault("FIFTYONE_DO_NOT_TRACK", "true")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("DATUM_TELEMETRY", "0")
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from amg_pipeline.export.formats import export_run
from amg_pipeline.export.settings import ExportSettings
from amg_pipeline.selection import Selection
from tests.export.stored_runs import write_run

Export = Callable[..., Path]


@pytest.fixture(scope="session")
def run_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def export(run_output: Path, tmp_path: Path) -> Export:
    """Export the run to a folder, by the format's name and settings."""

    def run(name: str, *, images: tuple[str, ...] = (), **settings: Any) -> Path:
        dest = tmp_path / name
        export_run(
            name,
            str(run_output),
            str(dest),
            selection=Selection(images=images),
            settings=ExportSettings(**settings),
        )
        return dest

    return run
