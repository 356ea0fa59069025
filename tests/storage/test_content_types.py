"""What stores are told of objects."""

from __future__ import annotations

from typing import Any

import pytest

from amg_pipeline.storage.content_types import content_type_of
from amg_pipeline.storage.remote_files import RemoteFiles
from amg_pipeline.storage.s3_files import S3Files


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("page/index.html", "text/html; charset=utf-8"),
        ("images/0-masks.js", "text/javascript; charset=utf-8"),
        ("A.JPG", "image/jpeg"),
        ("masks/part-000000-aabbccdd.parquet", None),
        ("html", None),
        ("", None),
    ],
)
def test_type_follows_the_ending(key: str, expected: str | None) -> None:
    assert content_type_of(key) == expected


@pytest.mark.parametrize(
    ("key", "told"), [("index.html", "text/html; charset=utf-8"), ("part.parquet", None)]
)
def test_s3_is_told(monkeypatch: pytest.MonkeyPatch, key: str, told: str | None) -> None:
    sent: list[dict[str, Any]] = []
    files = S3Files("s3://bucket/page")
    monkeypatch.setattr(files, "_call", lambda operation, **arguments: sent.append(arguments))

    files.put(key, b"x")

    assert sent[0]["Key"] == f"page/{key}"
    assert sent[0].get("ContentType") == told


@pytest.mark.parametrize(
    ("scheme", "told"), [("gs", {"content_type": "image/png"}), ("memory", {})]
)
def test_google_is_told_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch, scheme: str, told: dict[str, str]
) -> None:
    class Filesystem:
        sent: list[dict[str, Any]]

        def pipe_file(self, path: str, data: bytes, **options: Any) -> None:
            self.sent = [options]

    filesystem = Filesystem()
    monkeypatch.setattr(
        "amg_pipeline.storage.remote_files.open_filesystem", lambda uri: (filesystem, "/bucket")
    )

    RemoteFiles(f"{scheme}://bucket").put("a.png", b"x")

    assert filesystem.sent == [told]
