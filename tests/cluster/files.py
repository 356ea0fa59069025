"""The files of `cluster/`, read once for all tests of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
RAY_UP_FILES = ("aws-spot.yaml", "gcp-spot.yaml")


def load_yaml(name: str) -> Any:
    """Read a file of `cluster/`, which holds one document."""
    return yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8"))


def pinned_version(package: str) -> str:
    """Return the version that the environments of this project have."""
    text = (ROOT / "requirements" / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(package)}==(\S+)$", text, re.MULTILINE)
    assert found, package
    return found[1]
