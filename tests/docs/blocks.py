"""The code blocks of README and docs, and whether each can be run here."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Pages that are made when the site is built, by the names of their generators.
GENERATED = {
    "docs/reference/settings.md": "settings_page",
    "docs/reference/output.md": "schema_page",
    "docs/reference/commands.md": "commands_page",
}
#: Languages whose blocks do something. What is only to be read is `text`, `yaml` or nothing.
RUNNABLE = ("bash", "python", "sql")
_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w-]*)[^\n`]*$")
_NO_RUN = re.compile(r"^\s*<!-- no-run: (?P<reason>\S.*?) ?-->$")


@dataclass(frozen=True)
class Block:
    """A block of code.

    Attributes:
        page: Its file, relative to the repository.
        line: Of its first line of code, from 1.
        language: What stands behind the fence.
        code: Its lines.
        reason: Why it is not run; None if it is.
    """

    page: str
    line: int
    language: str
    code: str
    reason: str | None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: str, text: str) -> Iterator[Block]:
    """Find the blocks of a page; the line before the fence says if one is not run."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        start = _FENCE.match(lines[number])
        number += 1
        if start is None:
            continue
        before = next((line for line in reversed(lines[: number - 1]) if line.strip()), "")
        mark = _NO_RUN.match(before)
        first, code = number, []
        while lines[number].strip() != "```":
            code.append(lines[number].removeprefix(start["indent"]))
            number += 1
        number += 1
        reason = mark["reason"] if mark else None
        yield Block(page, first + 1, start["language"], "\n".join(code) + "\n", reason)


def pages() -> dict[str, str]:
    """Read README and all pages, generated ones too, by path."""
    written = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in written}
    sys.path.insert(0, str(ROOT / "docs" / "generate"))
    try:
        return found | {path: __import__(name).make_page() for path, name in GENERATED.items()}
    finally:
        sys.path.pop(0)


def all_blocks() -> list[Block]:
    """Find the blocks of all pages."""
    return [block for page, text in pages().items() for block in read_blocks(page, text)]
