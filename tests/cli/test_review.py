"""`amg review` on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import uvicorn

from tests.cli.conftest import Amg
from tests.export.stored_runs import write_run


@pytest.fixture(scope="module")
def run_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("stored"))


@pytest.fixture
def ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the server be ended by Ctrl-C as soon as it would run."""

    def interrupt(self: uvicorn.Server, sockets: object = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", interrupt)


@pytest.mark.usefixtures("ended_at_once")
def test_address_is_of_this_machine_and_without_a_token(amg: Amg, run_output: Path) -> None:
    ended = amg("review", run_output, "--reviewer", "anna")

    assert ended.code == 0
    assert ended.out.startswith("review: http://127.0.0.1:")
    assert "token" not in ended.out
    assert (run_output / "_amg" / "reviews" / "anna.jsonl").exists()


@pytest.mark.usefixtures("ended_at_once")
def test_address_for_others_has_a_long_random_token(amg: Amg, run_output: Path) -> None:
    lines = {amg("review", run_output, "--host", "0.0.0.0").out.splitlines()[0] for _ in range(2)}

    tokens = {line.partition("?token=")[2] for line in lines}
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 40


def test_missing_extra_is_named_with_its_repair(
    amg: Amg, run_output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith("amg_pipeline.review"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)

    ended = amg("review", run_output)

    assert ended.code == 2
    assert 'pip install "amg_pipeline[review]"' in ended.err


@pytest.mark.usefixtures("ended_at_once")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--token", "short"], id="token"),
        pytest.param(["--reviewer", " "], id="reviewer"),
        pytest.param(["--images", "nothing*"], id="no-image"),
        pytest.param(["--host", "no.such.host.invalid."], id="host"),
    ],
)
def test_unfit_option_is_refused(amg: Amg, run_output: Path, options: list[str]) -> None:
    ended = amg("review", run_output, *options)

    assert ended.code == 2
    assert "Received" in ended.err


def test_no_run_is_refused(amg: Amg, tmp_path: Path) -> None:
    assert amg("review", tmp_path).code == 2
    assert list(tmp_path.iterdir()) == []


def test_address_names_the_port_that_was_free(
    amg: Amg, run_output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def answer(self: uvicorn.Server, sockets: list[object]) -> None:
        seen.append(sockets[0].getsockname())
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", answer)
    ended = amg("review", run_output, "--port", 0)

    assert f":{seen[0][1]}/" in ended.out
