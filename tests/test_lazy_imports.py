"""Processes without a model never load one: what each entry leaves in `sys.modules`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from amg_pipeline.sam.presets import PRESETS
from amg_pipeline.sam.weights.architecture import expected_shapes, of_preset
from amg_pipeline.sam.weights.safetensors_file import write_safetensors
from amg_pipeline.sam.weights.tensors import SourceTensor
from tests.photo_runs import plan_photos, write_photos

ROOT = Path(__file__).parents[1]
HEAVY = frozenset({"keras", "tensorflow", "jax", "torch", "ray", "matplotlib"})


def loaded_by(statement: str, *arguments: object) -> set[str]:
    """Run a statement in a process of its own, and give the names of the modules there."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "in", 2)


def write_zeros(path: Path) -> Path:
    """Write weights of the packaged model's shapes."""
    tensors = {
        name: SourceTensor(name, shape, "float32", lambda shape=shape: np.zeros(shape, np.float32))
        for name, shape in expected_shapes(of_preset(PRESETS["tiny"])).items()
    }
    with path.open("wb") as file:
        write_safetensors(file, tensors, dtype="float32", metadata={})
    return path


def test_import_of_the_package_loads_no_model() -> None:
    loaded = loaded_by("import amg_pipeline")

    assert "amg_pipeline" in loaded
    assert not loaded & HEAVY


def test_use_of_a_model_would_be_noticed() -> None:
    """The check itself: NumPy is loaded by what needs it."""
    assert "numpy" in loaded_by("from amg_pipeline import load_masks")
    assert "numpy" not in loaded_by("import amg_pipeline")


def test_plan_loads_no_model(photos: Path, tmp_path: Path) -> None:
    weights = write_zeros(tmp_path / "w.safetensors")

    loaded = loaded_by(
        "from amg_pipeline.cli import main\nmain(['plan', *sys.argv[1:]])",
        *(photos, tmp_path / "out", "--weights", weights),
    )

    assert (tmp_path / "out" / "_amg" / "plan.json").exists()
    assert "amg_pipeline.planning" in loaded
    assert not loaded & HEAVY


def test_status_verify_and_report_load_no_model(photos: Path, tmp_path: Path) -> None:
    plan_photos(photos, tmp_path / "out")

    loaded = loaded_by(
        "from amg_pipeline.cli import main\n"
        "main(['status', sys.argv[1]])\n"
        "main(['verify', sys.argv[1]])\n"
        "main(['report', *sys.argv[1:]])",
        *(tmp_path / "out", tmp_path / "page"),
    )

    assert "amg_pipeline.report.html" in loaded
    assert not loaded & HEAVY


def test_worker_code_loads_no_model_before_it_is_asked_for() -> None:
    assert not loaded_by("import amg_pipeline.local_runner, amg_pipeline.shard_runner") & HEAVY
