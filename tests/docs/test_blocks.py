"""Every command of README and docs is one that exists, and says so if no test runs it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from amg_pipeline.cli import app
from tests.docs.blocks import RUNNABLE, Block, all_blocks, pages, read_blocks

BLOCKS = all_blocks()
#: Languages of blocks that are read only.
_READ = ("", "text", "yaml", "json", "dockerfile")


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the arguments of each `amg ...` of a block, variables and all."""
    for line in block.code.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\||;|\|(?=\s)", line):
            words = shlex.split(part, comments=True)
            position = next((i for i, word in enumerate(words) if Path(word).name == "amg"), None)
            if position is not None and words[position + 1 :]:
                yield words[position + 1 :]


COMMANDS = [
    (block, words) for block in BLOCKS if block.language == "bash" for words in commands(block)
]


def parse(words: list[str]) -> None:
    """Let click read a command line without running it."""
    context: click.Context | None = None
    command: Any = app
    while isinstance(command, click.Group):
        if not words or words[0].startswith("-"):
            return
        context = command.make_context(command.name, list(words[:1]), parent=context)
        found = command.get_command(context, words[0])
        assert found is not None, f"no such command: {words[0]}"
        command, words = found, words[1:]
    if "--help" in words:
        return
    command.make_context(command.name, list(words), parent=context)


def test_pages_have_blocks_of_both_kinds() -> None:
    marked = [block for block in BLOCKS if block.reason is not None]
    runnable = [block for block in BLOCKS if block.reason is None and block.language in RUNNABLE]
    assert len(marked) > 5
    assert len(runnable) > 5
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_block_is_run_or_read(block: Block) -> None:
    assert block.language in (*RUNNABLE, *_READ), "no test runs this language"


@pytest.mark.parametrize(("block", "words"), COMMANDS, ids=lambda value: str(value)[:60])
def test_command_parses(block: Block, words: list[str], tmp_path: Path) -> None:
    parse(words)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "bash"], ids=str)
def test_shell_block_is_valid(block: Block) -> None:
    checked = subprocess.run(
        ["bash", "-n"], input=block.code, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python"], ids=str
)
def test_python_block_compiles(block: Block) -> None:
    compile(block.code, str(block), "exec")


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_yaml_block_is_valid(block: Block) -> None:
    assert list(yaml.safe_load_all(block.code))


def test_marks_are_found_and_fences_end() -> None:
    text = "\n".join(
        [
            "<!-- no-run: needs a cluster -->",
            "",
            "```bash",
            "amg status s3://bucket/masks",
            "```",
            "1. step",
            "   ```python",
            "   if True:",
            "       print(1)",
            "   ```",
        ]
    )
    marked, free = read_blocks("page.md", text)
    assert (marked.reason, marked.line, marked.language) == ("needs a cluster", 4, "bash")
    assert (free.reason, free.code) == (None, "if True:\n    print(1)\n")


@pytest.mark.parametrize("words", [["run", "in", "out", "--fast"], ["rum", "in", "out"]])
def test_a_wrong_command_does_not_parse(words: list[str]) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        parse(words)


def test_commands_are_found_in_pipes_and_lists() -> None:
    block = Block("page.md", 1, "bash", "cd x && amg status out | head\namg run a \\\n  b\n", None)
    assert list(commands(block)) == [["status", "out"], ["run", "a", "b"]]


def test_every_setting_and_command_has_a_meaning() -> None:
    made = pages()
    run_settings, _, others = made["docs/reference/settings.md"].partition("\n## Training\n")
    assert "`optimization.learning_rate`" in others
    assert "`dataset.min_area_fraction`" in others
    settings = run_settings.split("\n### `")[1:]
    assert len(settings) > 40
    for entry in settings:
        meaning = entry.split("\n\n")[2] if entry.count("\n\n") >= 2 else ""
        assert meaning.strip(), entry.partition("`")[0]
        assert not meaning.startswith("#"), entry.partition("`")[0]
    for name in app.commands:
        assert f"## amg {name}\n" in made["docs/reference/commands.md"]


def test_a_column_without_a_meaning_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pages()
    page = sys.modules["schema_page"]
    monkeypatch.delitem(page._MEANINGS, "status")
    with pytest.raises(ValueError, match="status"):
        page.make_page()
