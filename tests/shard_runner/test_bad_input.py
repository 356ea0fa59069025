"""Bad input: a row each, and the run goes on."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import compress, crc32

import pytest

from amg_pipeline.errors import TransientStorageError
from amg_pipeline.planning import Plan
from amg_pipeline.records import DecodedImage, ImageRef
from amg_pipeline.storage.local_files import LocalFiles
from tests.photo_runs import plan_photos, write_photo
from tests.shard_runner.photo_shards import make_runner, rows_of, shards_of


def _png_of_width_zero() -> bytes:
    def chunk(body: bytes) -> bytes:
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", crc32(body))

    header = b"IHDR" + struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(header) + chunk(b"IDAT" + compress(b"")) + chunk(b"IEND")


def _truncated_jpeg(path: Path) -> bytes:
    write_photo(path, height=64, width=64)
    return path.read_bytes()[:700]


def _make_bad_input(folder: Path) -> Path:
    """A manifest of one image of every bad kind, and good ones between and after them."""
    files: dict[str, Callable[[Path], Any]] = {
        "zero-bytes.jpg": lambda path: path.write_bytes(b""),
        "text.jpg": lambda path: path.write_text("I am no photo\n"),
        "truncated.jpg": lambda path: path.write_bytes(_truncated_jpeg(path)),
        "bomb.png": lambda path: write_photo(path, height=200, width=101),
        "zero-sized.png": lambda path: path.write_bytes(_png_of_width_zero()),
        "folder.jpg": lambda path: path.mkdir(),
        "missing.jpg": lambda path: None,
        "denied.png": write_photo,
        "1x1.png": lambda path: write_photo(path, height=1, width=1),
        "1x5000.png": lambda path: write_photo(path, height=1, width=5000),
        "5000x1.png": lambda path: write_photo(path, height=5000, width=1),
        "with space.png": write_photo,
        "with'\"quotes.png": write_photo,
        "ünï-写真-📷.png": write_photo,
        "good.png": write_photo,
    }
    lines = ["uri,image_id"]
    for name, write in files.items():
        write(folder / name)
        quoted = name.replace('"', '""')
        lines.append(f'"{folder}/{quoted}","{quoted}"')
    lines.append("nosuch://bucket/a.jpg,scheme.jpg")
    manifest = folder / "list.csv"
    manifest.write_text("\n".join(lines), encoding="utf-8")
    return manifest


EXPECTED_ROWS = {
    "zero-bytes.jpg": ("decode_error", "ImageDecodeError", "zero bytes"),
    "text.jpg": ("decode_error", "ImageDecodeError", "text"),
    "truncated.jpg": ("decode_error", "ImageDecodeError", "truncated"),
    "bomb.png": ("too_large", "ImageTooLargeError", "101 x 200"),
    "zero-sized.png": ("decode_error", "ImageDecodeError", "no pixels"),
    "folder.jpg": ("fetch_error", "ImageFetchError", "Is a directory"),
    "missing.jpg": ("fetch_error", "ImageNotFoundError", "nothing is there"),
    "denied.png": ("fetch_error", "ImageFetchError", "access must be permitted"),
    "scheme.jpg": ("fetch_error", "ConfigError", "scheme"),
}
EXPECTED_SIZES = {
    "1x1.png": (1, 1),
    "1x5000.png": (5000, 1),
    "5000x1.png": (1, 5000),
    "with space.png": (8, 6),
    "with'\"quotes.png": (8, 6),
    "ünï-写真-📷.png": (8, 6),
    "good.png": (8, 6),
}


def test_bad_input_gets_rows_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = _make_bad_input(tmp_path)
    plan = plan_photos(manifest, tmp_path / "out", "images.max_pixels=20000", shard_size=99)
    read = LocalFiles.read

    def read_unless_denied(self: LocalFiles, key: str) -> bytes:
        # Permissions do not bind the superuser, under whom tests often run.
        if f"{self.root}{key}".endswith("denied.png"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return read(self, key)

    monkeypatch.setattr(LocalFiles, "read", read_unless_denied)

    report = make_runner(plan).run(shards_of(plan)[0])

    rows = rows_of(plan)
    assert rows.keys() == EXPECTED_ROWS.keys() | EXPECTED_SIZES.keys()
    for name, (status, error_type, message) in EXPECTED_ROWS.items():
        row = rows[name]
        assert (row.status, row.error_type) == (status, error_type), name
        assert message in (row.error_message or ""), name
        assert row.masks == ()
        assert str(tmp_path) not in (row.error_message or "")
    for name, size in EXPECTED_SIZES.items():
        assert rows[name].status == "ok", name
        assert (rows[name].width, rows[name].height) == size
        assert len(rows[name].masks) >= 3
    assert report.images == {"ok": 7, "decode_error": 4, "too_large": 1, "fetch_error": 4}
    # All but the missing one: whether it is there is a fact.
    assert report.unsettled == 3
    assert list(plan.run_directory.verify(plan.stored)) == []


def test_long_message_is_cut(plan: Plan) -> None:
    def load(ref: ImageRef, **_: Any) -> DecodedImage:
        raise TransientStorageError("x" * 2000)

    make_runner(plan, load=load).run(shards_of(plan)[0], is_last_attempt=True)

    assert {len(row.error_message or "") for row in rows_of(plan).values()} == {500}
