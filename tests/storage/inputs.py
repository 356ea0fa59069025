"""Folders of files, and the ids of the images that are found in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amg_pipeline.config import ImageSettings
from amg_pipeline.storage.manifest import list_images


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def ids(source: object, **settings: Any) -> list[str]:
    return list_images(ImageSettings(input=str(source), **settings))["image_id"].to_pylist()
