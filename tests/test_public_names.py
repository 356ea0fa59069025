"""The public names: complete, lazy, and free of what they do not need."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module, resources

import pytest

import amg_pipeline
import amg_pipeline.sam
from amg_pipeline import errors

#: Libraries that cost seconds or memory; a process that only plans must not load them.
HEAVY = ("keras", "tensorflow", "jax", "torch", "ray", "pyarrow", "pycocotools", "numpy")


def _modules_loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("package", ["amg_pipeline", "amg_pipeline.sam"])
def test_import_loads_nothing_heavy(package: str) -> None:
    assert not _modules_loaded_by(f"import {package}") & set(HEAVY)


@pytest.mark.parametrize("package", [amg_pipeline, amg_pipeline.sam], ids=lambda p: p.__name__)
def test_all_equals_the_lazy_names(package: object) -> None:
    public = [name for name in package.__all__ if name != "__version__"]

    assert sorted(public) == sorted(package._HOMES)
    assert len(set(package.__all__)) == len(package.__all__)


@pytest.mark.parametrize(
    ("package", "name"),
    [
        (package.__name__, name)
        for package in (amg_pipeline, amg_pipeline.sam)
        for name in package.__all__
    ],
)
def test_public_name_resolves(package: str, name: str) -> None:
    value = getattr(import_module(package), name)

    if name != "__version__":
        assert value.__name__ == name
    assert name in dir(import_module(package))


@pytest.mark.parametrize("package", [amg_pipeline, amg_pipeline.sam], ids=lambda p: p.__name__)
def test_unknown_name_raises_attribute_error(package: object) -> None:
    with pytest.raises(AttributeError, match="no attribute 'SamPredictor'"):
        _ = package.SamPredictor


def test_version_is_major_minor_patch() -> None:
    assert [part.isdigit() for part in amg_pipeline.__version__.split(".")] == [True] * 3


def test_package_is_marked_as_typed() -> None:
    assert resources.files("amg_pipeline").joinpath("py.typed").is_file()


def test_every_error_derives_from_the_base() -> None:
    defined = [value for value in vars(errors).values() if isinstance(value, type)]

    assert len(defined) > 10
    assert all(issubclass(error, errors.AmgPipelineError) for error in defined)
