"""Every submission that a page or a comment shows: its words parse, and its files exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from ray.dashboard.modules.job.cli import submit

from amg_pipeline.cli import app
from amg_pipeline.cli.settings import resolve_options
from amg_pipeline.config import RunConfig

ROOT = Path(__file__).parents[2]
#: With the names of the help option, which a command keeps from the first context that it sees.
_PARENT = click.Context(app, **app.context_settings)
PAGES = (
    ROOT / "README.md",
    ROOT / "docs" / "cluster.md",
    *sorted((ROOT / "jobs").rglob("*.yaml")),
    *sorted((ROOT / "cluster").rglob("*.yaml")),
    ROOT / "jobs" / "submit.sh",
)
_ENTRYPOINT = ["python", "jobs/generate_masks.py"]


def _lines(page: Path) -> Iterator[str]:
    """Yield a page's lines without comment signs, those that go on on the next line joined."""
    text = re.sub(r"(?m)^#( |$)", "", page.read_text(encoding="utf-8"))
    yield from re.sub(r"\\\n\s*", "", text).splitlines()


def _submissions() -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield a name, the words for `ray job submit`, and those for `amg run`, of each."""
    for page in PAGES:
        for line in _lines(page):
            found = re.search(r"(?:^|\s)(jobs/submit\.sh|ray job submit) (?=.*://)(.*)$", line)
            if not found or "[" in line:
                continue
            words = shlex.split(found[2], comments=True)
            ray_words, amg_words = [], words
            if "--" in words:
                end = words.index("--")
                ray_words, amg_words = words[:end], words[end + 1 :]
            if found[1] == "ray job submit":
                assert amg_words[:2] in (_ENTRYPOINT, ["amg", "run"]), line
                amg_words = amg_words[2:]
            yield f"{page.name}: {line.strip()}", ray_words, amg_words


def _options(words: list[str]) -> RunConfig:
    context = app.commands["run"].make_context("run", list(words), parent=_PARENT)
    return resolve_options(context.params)


SUBMISSIONS = list(_submissions())


def test_every_kind_of_page_shows_a_submission() -> None:
    shown = {name.partition(":")[0] for name, _, _ in SUBMISSIONS}

    assert shown >= {"README.md", "cluster.md", "submit.sh", "vit_h.yaml", "aws-spot.yaml"}


@pytest.mark.parametrize(
    ("ray_words", "amg_words"),
    [submission[1:] for submission in SUBMISSIONS],
    ids=[submission[0] for submission in SUBMISSIONS],
)
def test_submission_parses(
    ray_words: list[str], amg_words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The driver's folder is the package that is sent.
    monkeypatch.chdir(ROOT)

    submit.make_context("submit", [*ray_words, "--", "true"])
    config = _options(amg_words)

    assert config.model.variant == "tiny" or config.model.weights, "weights are missing"


def test_submission_with_an_unknown_option_does_not_parse() -> None:
    with pytest.raises(click.NoSuchOption):
        _options(["s3://bucket/in", "s3://bucket/out", "--gpus", "1"])
