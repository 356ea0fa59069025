"""The submission script: linted, and the exact command that it gives."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "jobs" / "submit.sh"
SHELLCHECK = Path(sys.executable).with_name("shellcheck")
COMMAND = "ray job submit --working-dir . --runtime-env cluster/runtime-env.yaml"
INPUT_OUTPUT = ("s3://bucket/photos", "s3://bucket/masks")


def _submit(
    *words: str, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [SCRIPT, *words],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_shell_parses_it() -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)


def test_shellcheck_finds_nothing() -> None:
    found = subprocess.run(
        [SHELLCHECK, "--enable=all", "--severity=style", "--exclude=SC2310,SC2312", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
    )

    assert found.stdout == ""
    assert found.returncode == 0


def test_shellcheck_finds_an_unquoted_variable(tmp_path: Path) -> None:
    bad = tmp_path / "bad.sh"
    bad.write_text("#!/usr/bin/env bash\nrm $1\n")

    found = subprocess.run([SHELLCHECK, str(bad)], capture_output=True, text=True, check=False)

    assert "SC2086" in found.stdout


def test_command_is_the_documented_one() -> None:
    ended = _submit("--dry-run", *INPUT_OUTPUT, "--config", "jobs/configs/vit_h.yaml")

    assert ended.returncode == 0
    assert ended.stdout == (
        f"{COMMAND} -- python jobs/generate_masks.py s3://bucket/photos s3://bucket/masks "
        "--config jobs/configs/vit_h.yaml\n"
    )


def test_words_before_two_dashes_are_for_ray() -> None:
    ended = _submit("--dry-run", "--no-wait", "--submission-id", "a", "--", *INPUT_OUTPUT)

    assert ended.stdout.startswith(f"{COMMAND} --no-wait --submission-id a -- python ")


def test_words_with_spaces_stay_whole() -> None:
    ended = _submit("--dry-run", "s3://bucket/my photos", "out", "--include", "*.jpg")

    assert shlex.split(ended.stdout)[-4:] == ["s3://bucket/my photos", "out", "--include", "*.jpg"]


@pytest.mark.parametrize("word", ["a -- b", " -- ", "--  --"])
def test_two_dashes_within_a_word_separate_nothing(word: str) -> None:
    ended = _submit("--dry-run", word, "out", "--include", word)
    assert ended.returncode == 0, ended.stderr
    assert shlex.split(ended.stdout)[-4:] == [word, "out", "--include", word]

    ended = _submit("--dry-run", "--metadata-json", word, "--", word, "out")
    words = shlex.split(ended.stdout)
    assert words[words.index("--metadata-json") + 1] == word
    assert words[-2:] == [word, "out"]


@pytest.mark.parametrize("words", [(), ("s3://bucket/photos",), ("--no-wait", "--", "in")])
def test_without_input_and_output_it_is_refused(words: tuple[str, ...]) -> None:
    ended = _submit(*words)

    assert ended.returncode == 2
    assert "usage:" in ended.stderr


def test_it_runs_the_command_it_prints_in_the_checkout(tmp_path: Path) -> None:
    ray = tmp_path / "ray"
    ray.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$PWD" "$@" >&2\nexit 7\n')
    ray.chmod(0o755)

    ended = _submit(*INPUT_OUTPUT, cwd=tmp_path, PATH=f"{tmp_path}:{os.environ['PATH']}")

    printed = shlex.split(ended.stdout)
    assert ended.stderr.splitlines() == [str(ROOT), *printed[1:]]
    assert ended.returncode == 7
