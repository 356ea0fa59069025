from __future__ import annotations

import pytest

from amg_pipeline.sam import SAM
from tests.sam.small_sam import make_sam


@pytest.fixture(scope="session")
def sam() -> SAM:
    """The small SAM; tests only read it."""
    return make_sam()
