"""Adds the pages that are made from the code when the site is built, so that none can go stale."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import commands_page
import schema_page
import settings_page

_PAGES = {
    "reference/settings.md": settings_page.make_page,
    "reference/output.md": schema_page.make_page,
    "reference/commands.md": commands_page.make_page,
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Put the pages among those that are written by hand."""
    for path, make_page in _PAGES.items():
        files.append(File.generated(config, path, content=make_page()))
    return files
