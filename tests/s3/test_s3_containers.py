"""Tars and Parquet files on a real S3 server: what is read of them, and that it is right."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from amg_pipeline.config import ImageSettings
from amg_pipeline.errors import ConfigError, ImageNotFoundError
from amg_pipeline.records import ImageRef
from amg_pipeline.storage import s3_files
from amg_pipeline.storage.images import load_image
from amg_pipeline.storage.manifest import list_images
from tests.s3.conftest import UseServer
from tests.s3.s3_server import S3Server
from tests.storage.pictures import encode, photo
from tests.storage.tars import make_tar

pytestmark = pytest.mark.s3

WIDTHS = range(3, 15)
IMAGES = [encode(photo(width, 16), "PNG") for width in WIDTHS]


@pytest.fixture(params=["ceph", "rclone"])
def server(request: pytest.FixtureRequest, use_server: UseServer) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    use_server(found)
    return found


@pytest.fixture
def ranges(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of each ranged request."""
    asked: list[int] = []
    read = s3_files.S3Files.read_range

    def note(self: s3_files.S3Files, key: str, start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return read(self, key, start, stop)

    monkeypatch.setattr(s3_files.S3Files, "read_range", note)
    return asked


def put(server: S3Server, key: str, data: bytes) -> str:
    bucket = server.new_bucket()
    server.client().put_object(Bucket=bucket, Key=key, Body=data)
    return f"s3://{bucket}/in"


def load_widths(uri: str) -> list[int]:
    rows = list_images(ImageSettings(input=uri)).to_pylist()
    refs = [ImageRef(row["image_id"], row["uri"], row["size_bytes"], row["etag"]) for row in rows]
    return [load_image(ref).pixels.shape[1] for ref in refs]


def test_tar(server: S3Server, ranges: list[int]) -> None:
    members = {f"{i:02d}.png": data for i, data in enumerate(IMAGES)}
    large = {f"{i}.bin": bytes(3_000_000) for i in range(3)}
    tar = make_tar({**large, **members})
    uri = put(server, "in/a b#.tar", tar)
    assert load_widths(uri) == list(WIDTHS)
    assert sum(ranges) < 1_000_000
    assert ranges[-1] == 512 + len(IMAGES[-1])


def test_parquet(server: S3Server, ranges: list[int]) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table({"image": IMAGES, "other": [bytes([i]) * 500_000 for i in range(12)]}),
        sink,
        row_group_size=4,
        compression="none",
    )
    uri = put(server, "in/a.parquet", bytes(sink.getvalue()))
    assert load_widths(uri) == list(WIDTHS)
    assert sum(ranges) < 1_000_000


def test_cut_tar_is_refused_and_a_missing_one_is_a_missing_image(server: S3Server) -> None:
    uri = put(server, "in/a.tar", make_tar({"a.png": IMAGES[0]})[:700])
    with pytest.raises(ConfigError, match="must be whole"):
        list_images(ImageSettings(input=uri))
    with pytest.raises(ImageNotFoundError):
        load_image(ImageRef("x", f"{uri}/b.tar#offset=512&size=4"))
