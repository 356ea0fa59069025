"""File names: readable, below DEST, never twice."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amg_pipeline.export.names import FileNames, safe_path

IDS = st.text(st.sampled_from("ab./%\\é\n#:"), min_size=1, max_size=8)


@pytest.mark.parametrize(
    ("image_id", "expected"),
    [
        pytest.param("2024/a b.jpg", "2024/a b.jpg", id="plain"),
        pytest.param("../../etc/passwd", "%2E%2E/%2E%2E/etc/passwd", id="parents"),
        pytest.param("/abs//a.jpg", "%/abs/%/a.jpg", id="absolute"),
        pytest.param("s3://b/a.jpg", "s3%3A/%/b/a.jpg", id="uri"),
        pytest.param("a\n\\b", "a%0A%5Cb", id="control"),
        pytest.param("train.parquet#17", "train.parquet%2317", id="row"),
        pytest.param(".hidden", "%2Ehidden", id="hidden"),
        pytest.param("100%", "100%25", id="percent"),
        pytest.param("grün.png", "grün.png", id="letters"),
    ],
)
def test_path_of_an_id(image_id: str, expected: str) -> None:
    assert safe_path(image_id) == expected


@given(first=IDS, second=IDS)
def test_different_ids_have_different_paths_below(first: str, second: str) -> None:
    path = PurePosixPath(safe_path(first))

    assert not path.is_absolute()
    assert ".." not in path.parts
    assert (safe_path(first) == safe_path(second)) == (first == second)


def test_long_component_is_cut_and_stays_different() -> None:
    first, second = safe_path("ä" * 300 + "1"), safe_path("ä" * 300 + "2")

    assert first != second
    assert len(first.encode()) < 230


def test_second_image_of_a_stem_keeps_its_ending() -> None:
    names = FileNames()
    chosen = [names.choose(image_id) for image_id in ("a.jpg", "b/a.jpg", "a.png", "a.png.jpg")]

    assert chosen == [("a", True), ("b/a", True), ("a.png", False), ("a.png.jpg", False)]


def test_ending_that_is_no_images_is_part_of_the_name() -> None:
    names = FileNames()

    assert names.choose("v1.5")[0] == "v1.5"
    assert names.choose("x.JPG")[0] == "x"
    assert names.choose("d/.jpg")[0] == "d/%2Ejpg"
