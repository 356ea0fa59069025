from __future__ import annotations

from pathlib import Path

import pytest

from amg_pipeline.storage import uris


@pytest.mark.parametrize(
    ("uri", "scheme", "is_local"),
    [
        pytest.param("photos", None, True, id="relative"),
        pytest.param("/data/a::b://c", None, True, id="path with signs of a URI in it"),
        pytest.param("file:///data", "file", True, id="file"),
        pytest.param("S3://bucket/a", "s3", False, id="upper case"),
        pytest.param("c:/data", None, True, id="no double slash"),
    ],
)
def test_scheme(uri: str, scheme: str | None, is_local: bool) -> None:
    assert uris.scheme_of(uri) == scheme
    assert uris.is_local(uri) == is_local


def test_file_uri_is_literal_where_the_file_exists_and_decoded_otherwise(tmp_path: Path) -> None:
    (tmp_path / "a%20b.jpg").touch()
    assert uris.local_path(f"file://{tmp_path}/a%20b.jpg") == f"{tmp_path}/a%20b.jpg"
    assert uris.local_path(f"file://{tmp_path}/c%20d.jpg") == f"{tmp_path}/c d.jpg"
    assert uris.local_path(f"file://{tmp_path}/c d.jpg") == f"{tmp_path}/c d.jpg"


def test_name_that_is_no_text_survives_as_uri() -> None:
    path = "/data/caf\udce9.jpg"
    uri = uris.path_to_uri(path)
    assert uris.is_text(uri)
    assert uris.local_path(uri) == path


def test_absolute_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert uris.absolute_uri("photos/../in/") == f"{tmp_path}/in"
    assert uris.absolute_uri("~/in") == "/home/someone/in"
    assert uris.absolute_uri("file:///data/in") == "/data/in"
    assert uris.absolute_uri("s3://bucket/../in") == "s3://bucket/../in"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/in/", "s3://bucket/in"),
        ("s3://bucket/in//", "s3://bucket/in"),
        ("s3://bucket/", "s3://bucket"),
        ("memory://", "memory://"),
        ("https://host/in/", "https://host/in/"),
        ("https://host/in?list=/", "https://host/in?list=/"),
    ],
)
def test_absolute_uri_of_a_folder_has_no_slash_at_its_end(uri: str, expected: str) -> None:
    assert uris.absolute_uri(uri) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a/b.csv", ("s3://bucket/a", "b.csv")),
        ("s3://bucket/b.csv", ("s3://bucket", "b.csv")),
        ("/b.csv", ("/", "b.csv")),
        ("/a/b.csv", ("/a", "b.csv")),
        ("b.csv", (".", "b.csv")),
        ("memory://b.csv", ("memory://b.csv", "")),
    ],
)
def test_split_parent(uri: str, expected: tuple[str, str]) -> None:
    assert uris.split_parent(uri) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/in/*.jpg", ("/in", "*.jpg")),
        ("/in/20[12]?/**/x*.png", ("/in", "20[12]?/**/x*.png")),
        ("/*.jpg", ("/", "*.jpg")),
        ("*.jpg", (".", "*.jpg")),
        ("/in/plain.jpg", ("/in/plain.jpg", "")),
        ("s3://bucket/in/*/a.jpg", ("s3://bucket/in", "*/a.jpg")),
        ("http://[::1]:80/in", ("http://[::1]:80/in", "")),
        ("http://host/in?list=[1]", ("http://host/in?list=[1]", "")),
        ("s3://bucket", ("s3://bucket", "")),
    ],
)
def test_split_glob(uri: str, expected: tuple[str, str]) -> None:
    assert uris.split_glob(uri) == expected


def test_redact_removes_credentials_and_nothing_else() -> None:
    assert uris.redact("https://me:secret@host/a.jpg?X-Amz-Signature=1") == "https://host/a.jpg"
    assert uris.redact("s3://bucket/what?.jpg") == "s3://bucket/what?.jpg"
    assert uris.redact("/data/me:x@y") == "/data/me:x@y"
    assert uris.redact("s3://me:se@cret@bucket/a@b.jpg") == "s3://bucket/a@b.jpg"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://me:secret@bucket/a", True),
        ("https://me:se@cret@host", True),
        ("s3://bucket/a:b@c.jpg", False),
        ("http://host:80/a@b", False),
        ("abfs://container@account/a", False),
        ("file:///data/me:x@y", False),
        ("/data/x:/me:x@y", False),
        ("https://host/a.jpg?X-Amz-Date=1&X-Amz-Signature=ab", True),
        ("HTTPS://host/a.jpg?sig=ab", True),
        ("https://host/a.jpg?Signature=ab&Expires=1", True),
        ("https://host/a.jpg?design=ab&size=1", False),
        ("https://host/sig=1/a.jpg", False),
        ("/data/a?sig=b.jpg", False),
    ],
)
def test_has_credential(uri: str, expected: bool) -> None:
    assert uris.has_credential(uri) is expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/data/a.jpg", ""),
        ("s3://bucket/a/b.jpg", "s3://bucket"),
        ("s3://bucket", "s3://bucket"),
        ("https://me:secret@host:80/a?b=c", "https://host:80"),
    ],
)
def test_place_of(uri: str, expected: str) -> None:
    assert uris.place_of(uri) == expected
