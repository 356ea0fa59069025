"""What the site's builder does beside its own work.

Pages that are made from the code are added at each build, so that none can go stale, and the one
script that the theme would load from another host is replaced by ours.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

import commands_page
import schema_page
import settings_page

_THEIR_SCRIPT = "https://unpkg.com/iframe-worker/shim"
_OUR_SCRIPT = "assets/search-from-disk.js"
#: What a browser would fetch by itself. Links are only followed by people.
_FETCHED = re.compile(
    r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>"
)

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


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Let a page load nothing from other hosts."""
    return _at_home(output, page.url, "../" * page.url.count("/"))


def on_post_template(output_content: str, template_name: str, config: MkDocsConfig) -> str:
    """Let a page without text, such as that of wrong addresses, load nothing from them either."""
    return _at_home(output_content, template_name, "")


def _at_home(output: str, name: str, root: str) -> str:
    output = output.replace(_THEIR_SCRIPT, root + _OUR_SCRIPT)
    for found in _FETCHED.findall(output):
        raise PluginError(f"{name} must load nothing from other hosts. Received: {found}")
    return output
