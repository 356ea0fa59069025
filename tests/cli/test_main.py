"""The command line as a whole: help, exit codes, one line for each way to go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import click
import pytest

from amg_pipeline import __version__, cli
from amg_pipeline.errors import (
    ConfigError,
    FingerprintMismatchError,
    JobIncompleteError,
    ShardError,
    StorageError,
    WeightsError,
)
from tests.cli.conftest import Amg
from tests.photo_runs import write_photos

ROOT = Path(__file__).parents[2]


def test_help_names_every_command(amg: Amg) -> None:
    ended = amg("--help")

    assert ended.code == 0
    assert ended.err == ""
    for command in ("demo", "plan", "run", "status", "verify", "report", "weights"):
        assert f"  {command} " in ended.out
    # No description is cut off.
    assert "..." not in ended.out.replace("[ARGS]...", "")


@pytest.mark.parametrize("command", ["run", "plan"])
def test_help_of_a_run_lists_its_options(amg: Amg, command: str) -> None:
    ended = amg(command, "-h")

    assert ended.code == 0
    for option in (
        *("--config", "--set", "--model", "--weights", "--precision", "--shard-size"),
        *("--limit", "--sample", "--include", "--exclude", "--workers", "--gpus-per-worker"),
        *("--address", "--force"),
        {"run": "--local", "plan": "--dry-run"}[command],
    ):
        assert f"  {option} " in ended.out
    assert "manifest" in ended.out


def _commands(group: click.Group) -> list[click.Command]:
    own = list(group.commands.values())
    return own + [c for g in own if isinstance(g, click.Group) for c in _commands(g)]


@pytest.mark.parametrize("command", _commands(cli.app), ids=lambda command: command.name)
def test_every_command_and_option_has_a_help_text(command: click.Command) -> None:
    assert command.help
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_version(amg: Amg) -> None:
    assert amg("--version").out == f"amg, version {__version__}\n"


def test_no_command_shows_help_and_is_wrong_usage(amg: Amg) -> None:
    ended = amg()

    assert ended.code == 2
    assert ended.out == ""
    assert "Commands:" in ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["walk"], "No such command 'walk'. See amg --help."),
        (["plan"], "Missing argument 'INPUT'. See amg plan --help."),
        (["run", "in"], "Missing argument 'OUTPUT'. See amg run --help."),
        (["run", "in", "out", "--fast"], "No such option"),
        (["run", "in", "out", "--limit", "few"], "'few' is not a valid integer"),
        (["report", "out", "page", "--limit", "-1"], "-1 is not in the range"),
        (["weights", "melt"], "No such command 'melt'. See amg weights --help."),
    ],
)
def test_wrong_usage_is_one_line(amg: Amg, arguments: list[str], message: str) -> None:
    ended = amg(*arguments)

    assert ended.code == 2
    assert ended.out == ""
    assert ended.err.startswith("amg: ")
    assert message in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("why"), 2),
        (FingerprintMismatchError("why"), 2),
        (WeightsError("why"), 2),
        (click.FileError("x", "why"), 2),
        (JobIncompleteError("why"), 3),
        (StorageError("why"), 1),
        (ShardError("why"), 1),
        (PermissionError(13, "why"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_error_ends_with_its_code_and_one_line(
    amg: Amg, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(cli.app.commands, "fail", click.Command("fail", callback=fail))

    ended = amg("fail")

    assert ended.code == code
    assert ended.err.startswith("amg: ")
    assert "why" in ended.err
    assert ended.err.count("\n") == 1


def test_fault_of_the_program_keeps_its_traceback(
    amg: Amg, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(cli.app.commands, "fail", click.Command("fail", callback=fail))

    with pytest.raises(ZeroDivisionError):
        amg("fail")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()], ids=["ctrl-c", "abort"])
def test_interrupt_says_how_to_go_on(
    amg: Amg, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def interrupt() -> None:
        raise error

    monkeypatch.setitem(cli.app.commands, "fail", click.Command("fail", callback=interrupt))

    ended = amg("fail")

    assert ended.code == 130
    assert ended.last_line == "amg: interrupted; give the same command again to go on"


def test_sigterm_ends_with_its_code(amg: Amg, monkeypatch: pytest.MonkeyPatch) -> None:
    callback = partial(os.kill, os.getpid(), signal.SIGTERM)
    monkeypatch.setitem(cli.app.commands, "fail", click.Command("fail", callback=callback))

    ended = amg("fail")

    assert ended.code == 143
    assert ended.last_line == "amg: terminated; give the same command again to go on"


def test_output_after_its_reader_is_gone_goes_nowhere(
    amg: Amg, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail() -> None:
        raise BrokenPipeError

    monkeypatch.setitem(cli.app.commands, "fail", click.Command("fail", callback=fail))
    with (tmp_path / "stdout").open("w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        ended = amg("fail")
        # As the interpreter's last flush does.
        print("the rest", file=stdout, flush=True)

    assert ended.code == 1
    assert ended.err == ""
    assert (tmp_path / "stdout").read_text() == ""


# Processes of their own

_AMG = [sys.executable, "-m", "amg_pipeline.cli"]

#: `amg ...`, with a model that needs a minute for an image and says when it has begun.
_SLOW_AMG = """
import functools, pathlib, sys, time
sys.path.insert(0, sys.argv[1])
from amg_pipeline import planning
from amg_pipeline.cli import main, runs
from tests.photo_runs import accept, digest, threshold_masks

def generate(pixels, begun=pathlib.Path(sys.argv[2])):
    if begun.with_suffix(".first").exists():
        begun.touch()
        time.sleep(60)
    begun.with_suffix(".first").touch()
    return threshold_masks(pixels)

planning._model_weights_digest = digest
planning._check_model = accept
runs.run_locally = functools.partial(runs.run_locally, make_generator=lambda config: generate)
main(sys.argv[3:])
"""


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        pytest.param(signal.SIGINT, 130, "amg: interrupted; give the same command", id="sigint"),
        pytest.param(signal.SIGTERM, 143, "amg: terminated; give the same command", id="sigterm"),
    ],
)
def test_signal_ends_a_run_that_the_same_command_resumes(
    amg: Amg, fake_model: None, tmp_path: Path, number: signal.Signals, code: int, message: str
) -> None:
    photos, out, begun = write_photos(tmp_path / "in", 3), tmp_path / "out", tmp_path / "begun"
    command = ["run", str(photos), str(out), "--local", "--shard-size", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_AMG, str(ROOT), str(begun), *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not begun.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)

    process.send_signal(number)
    _, err = process.communicate(timeout=60)

    assert process.returncode == code, err
    assert message in err
    assert "Traceback" not in err
    assert len(list((out / "masks").iterdir())) == 1
    resumed = amg(*command)
    assert resumed.code == 0
    assert "3 shards: 1 done, 2 to do" in resumed.out


def test_module_is_the_command_and_answers_at_once() -> None:
    started = os.times()

    done = subprocess.run([*_AMG, "--help"], capture_output=True, text=True, timeout=120)

    ended = os.times()
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: amg [OPTIONS] COMMAND")
    # Processor time, which other work on the machine changes little: no model library is loaded.
    assert ended.children_user - started.children_user < 3


def test_output_that_nobody_reads_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*_AMG, "weights", "list"], stdout=writing, stderr=subprocess.PIPE, timeout=120
        )
    finally:
        os.close(writing)

    assert done.returncode == 1
    assert done.stderr == b""
