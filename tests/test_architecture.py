"""Imports point one way: the order of the modules, and who may use which library.

The order is that of the design: a module imports only from levels below its own, never sideways.
Imports inside functions and under TYPE_CHECKING count like any other: a dependency that shows only
in a type still has to be understood by the reader of the module.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import amg_pipeline

PACKAGE = "amg_pipeline"
ROOT = Path(__file__).parents[1] / PACKAGE

#: Top-level parts, lowest first. Parts of one level never import each other.
LEVELS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"assets", "config", "records"}),
    frozenset({"attempts", "telemetry", "progress", "recent_rate"}),
    frozenset({"sam", "amg", "storage"}),
    frozenset({"decisions", "run_addresses"}),
    frozenset({"selection"}),
    frozenset({"attempt_log", "planning", "shard_runner", "evaluation"}),
    frozenset(
        {"outcome", "run_status", "work", "training", "export", "report", "refilter", "review"}
    ),
    frozenset({"distributed", "local_runner"}),
    frozenset({"cli"}),
)
LEVEL_OF: Mapping[str, int] = {part: i for i, level in enumerate(LEVELS) for part in level}

#: Where a library may be imported; everything not listed is free. A name with a dot is one module.
HOMES: Mapping[str, frozenset[str]] = {
    "ray": frozenset({"distributed"}),
    "keras": frozenset({"sam", "training", "evaluation.sam_points"}),
    "tensorflow": frozenset({"sam", "training"}),
    "jax": frozenset({"sam", "training"}),
    "torch": frozenset({"sam", "training"}),
    "pyarrow": frozenset({"storage"}),
    "fsspec": frozenset({"storage", "sam.weights"}),
    "s3fs": frozenset({"storage"}),
    "click": frozenset({"cli"}),
    "rich": frozenset({"cli.evaluate", "progress"}),
    "fastapi": frozenset({"review"}),
    "starlette": frozenset({"review"}),
    "uvicorn": frozenset({"review"}),
}

#: Modules that are drawers rather than concepts.
BANNED_NAMES = frozenset({"utils", "util", "common", "helpers", "helper", "misc"})


def imported_names(source: str, *, module: str, is_package: bool) -> Iterator[str]:
    """Yield the dotted names a module imports, wherever in the file, relative ones resolved.

    `from a import b` yields `a.b`: whether `b` is a module or not, its prefix is what counts.
    `import_module("a")` and `__import__("a")` with a literal count too.
    """
    anchor = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = anchor[: len(anchor) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = ast.unparse(node.func).rsplit(".", 1)[-1]
            name = node.args[0]
            if called in {"import_module", "__import__"} and isinstance(name, ast.Constant):
                yield str(name.value)


def violations(source: str, *, module: str, is_package: bool = False) -> list[str]:
    """List what is wrong with the imports and the name of one module of the package."""
    names = module.split(".")[1:]
    faults = [
        f"{module}: {name!r} is a drawer, name the module for its concept"
        for name in names
        if name in BANNED_NAMES
    ]
    if not names:  # the package itself only points to its public names, lazily
        return faults
    if names[0] not in LEVEL_OF:
        return [*faults, f"{module}: {names[0]!r} has no place in LEVELS"]
    for imported in imported_names(source, module=module, is_package=is_package):
        fault = _fault(names, imported)
        if fault:
            faults.append(f"{module} imports {imported}: {fault}")
    return faults


def _fault(importer: list[str], imported: str) -> str | None:
    top, _, rest = imported.partition(".")
    if top != PACKAGE:
        return _library_fault(importer, top)
    # A public name of the package stands for the module that defines it.
    rest = amg_pipeline._HOMES.get(rest, imported).partition(".")[2]
    part = rest.partition(".")[0]
    if part in {"", "__version__", importer[0]}:
        return None
    if part not in LEVEL_OF:
        return f"{part!r} has no place in LEVELS"
    if LEVEL_OF[part] < LEVEL_OF[importer[0]]:
        return None
    direction = "sideways" if LEVEL_OF[part] == LEVEL_OF[importer[0]] else "upward"
    return f"{direction}, {importer[0]!r} may only use what is below it"


def _library_fault(importer: list[str], library: str) -> str | None:
    if importer == ["errors"] and library != "__future__":
        return "errors imports nothing"
    homes = HOMES.get(library)
    prefixes = {".".join(importer[:depth]) for depth in range(1, len(importer) + 1)}
    if homes is None or homes & prefixes:
        return None
    return f"{library} belongs to {', '.join(sorted(homes))}"


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(ROOT).with_suffix("").parts]
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(_modules())


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_the_import_order(module: str) -> None:
    path = MODULES[module]
    source = path.read_text(encoding="utf-8")

    assert violations(source, module=module, is_package=path.name == "__init__.py") == []


def test_walk_finds_the_package() -> None:
    assert {PACKAGE, f"{PACKAGE}.errors", f"{PACKAGE}.sam"} <= MODULES.keys()


def test_lazy_names_lie_in_modules_that_exist() -> None:
    assert set(amg_pipeline._HOMES.values()) <= MODULES.keys()


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        pytest.param(
            "storage.images", "from amg_pipeline.sam import presets", "sideways", id="sideways"
        ),
        pytest.param("sam.model", "import amg_pipeline.cli", "upward", id="upward"),
        pytest.param("config", "from amg_pipeline.records import Rle", "sideways", id="same-level"),
        pytest.param("amg.rle", "from amg_pipeline import storage", "sideways", id="from-root"),
        pytest.param("amg.rle", "from amg_pipeline import SAM", "sideways", id="lazy-public-name"),
        pytest.param("amg.rle", "from ..storage import images", "sideways", id="relative"),
        pytest.param("amg.rle", "from .. import cli", "upward", id="relative-root"),
        pytest.param("sam.model", "def f():\n    import ray", "ray belongs", id="in-function"),
        pytest.param(
            "report.html",
            "if TYPE_CHECKING:\n    import pyarrow as pa",
            "pyarrow belongs",
            id="types",
        ),
        pytest.param("cli", "import keras.ops", "keras belongs", id="keras-in-cli"),
        pytest.param(
            "shard_runner.mask_generator",
            "from tensorflow import io",
            "tensorflow belongs",
            id="backend",
        ),
        pytest.param("sam.model", "import fsspec", "fsspec belongs", id="fsspec-beside-weights"),
        pytest.param(
            "evaluation.edges", "import keras", "keras belongs", id="keras-off-model-part"
        ),
        pytest.param("planning", "import_module('keras')", "keras belongs", id="import-module"),
        pytest.param(
            "amg.rle",
            "importlib.import_module('amg_pipeline.cli')",
            "upward",
            id="import-module-own",
        ),
        pytest.param("errors", "import os", "imports nothing", id="errors"),
        pytest.param("sam.utils", "", "drawer", id="drawer"),
        pytest.param("amg.common.boxes", "", "drawer", id="drawer-package"),
        pytest.param("surprise", "", "no place", id="unknown-part"),
        pytest.param("cli", "import amg_pipeline.surprise", "no place", id="unknown-import"),
    ],
)
def test_checker_finds_a_fault(module: str, source: str, expected: str) -> None:
    faults = violations(source, module=f"{PACKAGE}.{module}")

    assert len(faults) == 1
    assert expected in faults[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param("storage.images", "from amg_pipeline.errors import ImageError", id="downward"),
        pytest.param(
            "storage.images", "from amg_pipeline.storage import manifest", id="own-package"
        ),
        pytest.param("storage.images", "from .manifest import plan", id="relative-own-package"),
        pytest.param("cli", "from amg_pipeline import __version__, load_masks", id="cli-on-top"),
        pytest.param("config", "from amg_pipeline import __version__", id="version"),
        pytest.param("sam.weights.fetch", "import fsspec", id="fsspec-in-weights"),
        pytest.param("evaluation.sam_points", "import keras", id="keras-in-model-part"),
        pytest.param("amg.rle", "import numpy as np, pycocotools.mask", id="free-libraries"),
        pytest.param("errors", "from __future__ import annotations", id="errors-future"),
    ],
)
def test_checker_accepts(module: str, source: str) -> None:
    assert violations(source, module=f"{PACKAGE}.{module}") == []


def test_relative_import_in_a_package_resolves_to_the_package() -> None:
    names = imported_names(
        "from . import fetch", module="amg_pipeline.sam.weights", is_package=True
    )

    assert list(names) == ["amg_pipeline.sam.weights.fetch"]


def test_levels_name_each_part_once() -> None:
    assert sum(map(len, LEVELS)) == len(LEVEL_OF)


def test_homes_name_real_parts() -> None:
    parts = {home.split(".")[0] for homes in HOMES.values() for home in homes}

    assert parts <= LEVEL_OF.keys()
    assert not HOMES.keys() & sys.stdlib_module_names
