"""What `ray job submit --working-dir .` sends, made by Ray's own packaging."""

from __future__ import annotations

import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from tests.cluster.files import ROOT

#: Ray takes at most 512 MiB; all of it is sent with a submission, so it ought to be far less.
LIMIT_BYTES = 64 * 2**20


def _pack(folder: Path, target: Path) -> list[str]:
    """Pack a folder as a submission does, and return the names of what is in the package."""
    create_package(
        str(folder),
        target,
        include_gitignore=True,
        excludes=get_runtime_env_default_excludes(),
    )
    with ZipFile(target) as package:
        return package.namelist()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with what people leave in theirs."""
    folder = tmp_path / "checkout"
    for name in (
        "amg_pipeline/sam/model.py",
        "amg_pipeline/assets/tiny.safetensors",
        "amg_pipeline/assets/photos/cat.jpg",
        "amg_pipeline/__pycache__/config.cpython-311.pyc",
        "jobs/generate_masks.py",
        "jobs/configs/vit_h.yaml",
        "cluster/runtime-env.yaml",
        "my-run.yaml",
        # None of these is to travel.
        ".git/objects/pack",
        ".venv/bin/python",
        ".venv-parity/bin/python",
        ".mypy_cache/x",
        "benchmarks/results/parity.json",
        "benchmarks/parity.py",
        "docs/cluster.md",
        "tests/jobs/test_submit.py",
        "tests/data.yaml",
        "amg-demo/report/index.html",
        "masks-of-holiday/masks/part-000000-0.parquet",
        "sam_vit_h_4b8939.pth",
        "photos.tar",
        "README.md",
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    for name in (".rayignore", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_only_what_a_job_needs_travels(checkout: Path, tmp_path: Path) -> None:
    assert sorted(_pack(checkout, tmp_path / "package.zip")) == [
        "amg_pipeline/assets/photos/cat.jpg",
        "amg_pipeline/assets/tiny.safetensors",
        "amg_pipeline/sam/model.py",
        "cluster/runtime-env.yaml",
        "jobs/configs/vit_h.yaml",
        "jobs/generate_masks.py",
        "my-run.yaml",
    ]


def test_without_the_file_all_of_it_would(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".rayignore").unlink()

    assert "tests/jobs/test_submit.py" in _pack(checkout, tmp_path / "package.zip")


def test_this_checkout_sends_the_whole_package_and_little_else(tmp_path: Path) -> None:
    target = tmp_path / "package.zip"
    packed = set(_pack(ROOT, target))
    needed = {
        str(file.relative_to(ROOT))
        for folder in ("amg_pipeline", "cluster", "jobs")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }

    assert "amg_pipeline/assets/tiny.safetensors" in needed
    assert needed - packed == set()
    assert {name.partition("/")[0] for name in packed if "/" in name} == {
        "amg_pipeline",
        "cluster",
        "jobs",
    }
    assert target.stat().st_size < LIMIT_BYTES
