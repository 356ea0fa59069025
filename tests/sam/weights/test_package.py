from __future__ import annotations

import subprocess
import sys

import pytest

from amg_pipeline.sam import weights


def test_import_brings_neither_keras_nor_a_backend() -> None:
    code = (
        "import sys, amg_pipeline.sam.weights;"
        "print([m for m in ('keras', 'tensorflow', 'jax', 'torch', 'h5py') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize("name", weights.__all__)
def test_public_names_exist(name: str) -> None:
    assert hasattr(weights, name)
