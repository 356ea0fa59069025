"""One stored run for all tests of exports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.stored_runs import write_run


@pytest.fixture(scope="session")
def run_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))
