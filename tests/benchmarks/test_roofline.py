"""The least time on accelerators is counted in the graphs that are compiled for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_models_budget_has_every_stage(tmp_path: Path) -> None:
    results = tmp_path / "roofline.json"
    # A process of its own: it makes the package believe in an accelerator.
    subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.roofline", "--models", "tiny"),
            *("--results", str(results), "--no-docs"),
        ],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        check=True,
        capture_output=True,
    )
    (row,) = json.loads(results.read_text())["models"].values()
    assert all(stage["flops"] > 0 for stage in row["stages"].values())
    assert len(row["stages"]) == 4
