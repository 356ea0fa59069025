"""Measurements as they come, a JSON object a line, so that a run that is cut off goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Log:
    """Keeps what was measured under keys; what is there is not measured again.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self.entries: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line that was being written when the run was cut off
            self.entries[entry["key"]] = entry

    def measure(self, key: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Give what is there under a key, or measure and append it."""
        if key not in self.entries:
            entry = {"key": key, "load_average": round(os.getloadavg()[0], 2), **measure()}
            self.entries[key] = entry
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            shown = {name: value for name, value in entry.items() if name not in ("key", "value")}
            print(key, _rounded(shown), flush=True)
        return self.entries[key]

    def has(self, key: str) -> bool:
        """Tell whether a key was measured."""
        return key in self.entries


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 2) if isinstance(v, float) else v for k, v in values.items()}
