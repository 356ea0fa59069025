"""The page of all commands, made from the program's own."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from amg_pipeline.cli import app

_HEAD = """# Commands

Every command and option of `amg`, made from the program; `amg COMMAND --help` says the same.

| exit code | meaning |
|---|---|
| 0 | everything is committed |
| 1 | an error of the machine or the program |
| 2 | wrong usage or configuration; nothing was touched |
| 3 | finished, but some images or shards failed for other reasons than their own content |
| 130, 143 | ended by SIGINT, SIGTERM; the same command goes on |
"""


def make_page() -> str:
    """Write the page in Markdown."""
    context = click.Context(app, info_name="amg", **app.context_settings)
    return "\n".join([_HEAD, *_commands(app, context)])


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        below = click.Context(command, info_name=name, parent=context)
        if isinstance(command, click.Group):
            yield f"## {below.command_path}\n\n{_prose(command)}\n"
            yield from _commands(command, below)
        else:
            level = "##" if context.parent is None else "###"
            yield _command(command, below, level)


def _command(command: click.Command, context: click.Context, level: str) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [f"{level} {context.command_path}\n", f"```text\n{usage}\n```\n", _prose(command), ""]
    records = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context)) is not None
    ]
    lines += ["| option | |", "|---|---|"]
    lines += [f"| `{_cell(option)}` | {_cell(text)} |" for option, text in records]
    return "\n".join(lines) + "\n"


def _prose(command: click.Command) -> str:
    text = inspect.cleandoc(command.help or command.short_help or "").partition("\f")[0]
    # Paragraphs that click is told not to wrap are lists of lines here.
    return text.replace("\b\n", "").replace("<", "&lt;").strip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
