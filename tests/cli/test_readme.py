"""The README's commands: every one parses, and those that can run offline do."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from amg_pipeline.cli import app
from tests.cli.conftest import Amg
from tests.photo_runs import write_photos

README = Path(__file__).parents[2] / "README.md"
#: A block of commands; the comment before it says that they need more than this machine, and why.
_BLOCK = re.compile(r"^(<!-- no-run: [^\n]*-->\n)?```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _commands(*, runnable: bool | None = None) -> Iterator[list[str]]:
    """Yield the arguments of each `amg ...` in a block of shell commands."""
    for mark, block in _BLOCK.findall(README.read_text(encoding="utf-8")):
        if runnable is not None and runnable == bool(mark):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            position = next((i for i, w in enumerate(words) if Path(w).name == "amg"), None)
            if position is not None:
                yield words[position + 1 :]


def _inline_commands() -> Iterator[list[str]]:
    """Yield the commands of the table, with each of their alternatives."""
    for text in re.findall(r"^\| `amg ([^`]*)` \|", README.read_text(encoding="utf-8"), re.M):
        words = [word.strip("[]") for word in text.split()]
        for index, word in enumerate(words):
            if r"\|" in word:
                for choice in word.split(r"\|"):
                    yield [*words[:index], choice]
                break
        else:
            yield words


def _command(group: click.Group, words: list[str]) -> click.Command:
    command: click.Command = group
    for word in words:
        if not isinstance(command, click.Group):
            break
        assert word in command.commands, f"no such command: {word}"
        command = command.commands[word]
    return command


def _parse(words: list[str]) -> None:
    context, command = None, app
    while isinstance(command, click.Group):
        context = command.make_context(command.name, list(words[:1]) or ["--help"])
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, list(words), parent=context)


def test_readme_has_commands_of_both_kinds() -> None:
    assert len(list(_commands(runnable=True))) >= 1
    assert len(list(_commands(runnable=False))) >= 1
    assert len(list(_inline_commands())) >= 6


@pytest.mark.parametrize("words", list(_commands()), ids=" ".join)
def test_command_parses(words: list[str]) -> None:
    _parse(words)


def test_command_with_an_unknown_option_does_not_parse() -> None:
    with pytest.raises(click.NoSuchOption):
        _parse(["run", "in", "out", "--fast"])


@pytest.mark.parametrize("words", list(_inline_commands()), ids=" ".join)
def test_command_of_the_table_exists(words: list[str]) -> None:
    assert not isinstance(_command(app, words), click.Group)


@pytest.mark.usefixtures("fake_model")
@pytest.mark.parametrize("words", list(_commands(runnable=True)), ids=" ".join)
def test_command_runs(
    amg: Amg, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos" / "holiday", 3)

    ended = amg(*(word.replace("~", str(tmp_path)) for word in words))

    assert ended.code == 0, ended.err
