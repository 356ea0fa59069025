"""The image: linted, pinned to the versions of this project, and the only one that is used."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.files import CLUSTER, RAY_UP_FILES, ROOT, load_yaml, pinned_version

DOCKERFILE = CLUSTER / "Dockerfile"
HADOLINT = Path(sys.executable).with_name("hadolint")


def _instructions(name: str) -> list[str]:
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{name}\s+(.+)$", text, re.MULTILINE)


def _lint(text: str) -> list[str]:
    ended = subprocess.run(
        [HADOLINT, "--no-color", "--format", "json", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return [f"{found['code']}: {found['message']}" for found in json.loads(ended.stdout)]


def test_hadolint_finds_nothing() -> None:
    assert _lint(DOCKERFILE.read_text(encoding="utf-8")) == []


def test_hadolint_finds_a_base_image_without_a_version() -> None:
    assert any(line.startswith("DL3006") for line in _lint("FROM rayproject/ray\n"))


def test_base_image_has_the_pinned_ray_and_a_supported_python() -> None:
    (base,) = _instructions("FROM")

    assert base == f"rayproject/ray:{pinned_version('ray')}-py311-cpu"


def test_package_is_installed_with_the_pinned_versions_for_gpus() -> None:
    (command,) = _instructions("RUN")

    assert "--constraint requirements/constraints.txt" in command
    extras = re.search(r'"\.\[([a-z,]+)\]"', command)
    assert extras
    assert set(extras[1].split(",")) >= {"gpu", "gcs"}


def test_image_does_not_run_as_root() -> None:
    # By number, as Kubernetes' runAsNonRoot checks it.
    assert [int(user) for user in _instructions("USER")] == [1000]


def test_what_is_copied_exists_and_may_be_seen_by_the_build() -> None:
    sources = [
        word
        for line in _instructions("COPY")
        for word in line.split()[:-1]
        if not word.startswith("--")
    ]
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()

    assert "*" in ignore
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignore


def test_all_nodes_have_one_image() -> None:
    used = [load_yaml(name)["docker"]["image"] for name in RAY_UP_FILES]
    for name in ("raycluster.yaml", "rayjob.yaml"):
        used += re.findall(r"image: (\S+)", (CLUSTER / "kuberay" / name).read_text())
    built = re.findall(r"--tag (\S+)", DOCKERFILE.read_text(encoding="utf-8"))

    assert len(used) == 6
    assert {*used, *built} == {used[0]}


def test_image_is_tagged_with_the_version_of_the_package() -> None:
    from amg_pipeline import __version__

    assert load_yaml("aws-spot.yaml")["docker"]["image"].endswith(f":{__version__}")


@pytest.mark.parametrize("name", RAY_UP_FILES)
def test_ray_up_uses_no_other_image(name: str) -> None:
    assert set(load_yaml(name)["docker"]) & {"head_image", "worker_image"} == set()
