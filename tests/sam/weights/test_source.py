from __future__ import annotations

import errno
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import fsspec
import pytest
import stamina
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from amg_pipeline.errors import ConfigError, StorageError, TransientStorageError, WeightsError
from amg_pipeline.sam.weights import source, weights_sha256
from amg_pipeline.sam.weights.source import local_files, shown, source_bytes, source_sha256


@pytest.fixture
def bucket() -> Iterator[str]:
    """A folder on fsspec's in-memory file system, which stands for an object store."""
    root = f"memory://weights-{uuid.uuid4().hex}"
    yield root
    filesystem, path = fsspec.core.url_to_fs(root)
    if filesystem.exists(path):
        filesystem.rm(path, recursive=True)


def put(root: str, name: str, data: bytes) -> str:
    with fsspec.open(f"{root}/{name}", "wb") as file:
        file.write(data)
    return f"{root}/{name}"


def test_weights_sha256_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_BLOCK_BYTES", 3)
    (tmp_path / "a.pth").write_bytes(b"0123456789")
    expected = hashlib.sha256(b"0123456789").hexdigest()
    assert weights_sha256("vit_b", tmp_path / "a.pth") == expected
    assert weights_sha256("vit_b", f"file://{tmp_path}/a.pth") == expected


def test_weights_sha256_of_a_remote_file(bucket: str) -> None:
    uri = put(bucket, "a.pth", b"abc")
    assert weights_sha256("vit_h", uri) == hashlib.sha256(b"abc").hexdigest()


def test_weights_sha256_of_packaged_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny.safetensors").write_bytes(b"tiny")
    monkeypatch.setattr(
        "amg_pipeline.assets.packaged_weights",
        {"tiny": str(tmp_path / "tiny.safetensors")}.get,
        raising=False,
    )
    assert weights_sha256("tiny", None) == hashlib.sha256(b"tiny").hexdigest()
    with pytest.raises(ConfigError, match=r"amg weights fetch vit_b downloads.*Received: none"):
        weights_sha256("vit_b", None)


def test_source_sha256_of_a_folder_depends_on_its_weights_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digest = source_sha256(tmp_path)
    assert (
        digest
        == hashlib.sha256(
            f"{hashlib.sha256(b'weights').hexdigest()}  model.safetensors\n".encode()
        ).hexdigest()
    )
    (tmp_path / "README.md").write_text("changed")
    assert source_sha256(f"{tmp_path}/") == digest
    (tmp_path / "model.safetensors").write_bytes(b"weightz")
    assert source_sha256(tmp_path) != digest


def test_local_files_leaves_local_ones_in_place(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"abc")
    with local_files(tmp_path / "a.pth") as files:
        assert files == (tmp_path / "a.pth",)


def test_local_files_copies_remote_ones_for_the_time_being(bucket: str) -> None:
    uri = put(bucket, "a.pth", b"abc")
    with local_files(uri) as (copy,):
        assert copy.read_bytes() == b"abc"
        assert copy.name == "a.pth"
    assert not copy.exists()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(["model.safetensors", "pytorch_model.bin"], ["model.safetensors"], id="hf"),
        pytest.param(["config.json", "model.weights.h5"], ["model.weights.h5"], id="kerashub"),
        pytest.param(["pytorch_model.bin"], ["pytorch_model.bin"], id="old-hf"),
    ],
)
def test_local_files_of_a_folder(files: list[str], expected: list[str], bucket: str) -> None:
    for name in files:
        put(bucket, name, b"x")
    with local_files(bucket) as copies:
        assert [copy.name for copy in copies] == expected


def index(names: Any) -> bytes:
    return json.dumps({"weight_map": names}).encode()


@pytest.mark.parametrize("ending", ["", "/model.safetensors.index.json"])
def test_local_files_of_a_sharded_model(ending: str, bucket: str) -> None:
    put(
        bucket,
        "model.safetensors.index.json",
        index({"a": "m-2.safetensors", "b": "m-1.safetensors"}),
    )
    put(bucket, "m-1.safetensors", b"1")
    put(bucket, "m-2.safetensors", b"22")
    with local_files(f"{bucket}{ending}") as copies:
        assert [copy.read_bytes() for copy in copies] == [b"1", b"22"]
    assert source_bytes(f"{bucket}{ending}") == 3


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"{", "weight_map", id="no-json"),
        pytest.param(b"[]", "weight_map", id="list"),
        pytest.param(index([1]), "weight_map", id="map-is-a-list"),
        pytest.param(index({"a": [1]}), "weight_map", id="list-as-name"),
        pytest.param(index({"a": "../../x.safetensors"}), "plain file names", id="path-as-name"),
        pytest.param(index({"a": "/etc/x.safetensors"}), "plain file names", id="absolute"),
        pytest.param(index({"a": 5}), "plain file names", id="number-as-name"),
    ],
)
def test_local_files_with_a_hostile_index_is_refused(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(WeightsError, match=reason), local_files(tmp_path):
        pass


def test_local_files_of_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(WeightsError, match=r"Expected one of model\.safetensors"):
        source_sha256(tmp_path)


@pytest.mark.parametrize("uri", ["{}/none.pth", "memory://no/such.pth"])
def test_local_files_of_nothing_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing there"), local_files(uri.format(tmp_path)):
        pass


def test_source_of_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"readable weights at nosuch://bucket/a.*ValueError"):
        source_sha256("nosuch://key:secret@bucket/a?sig=secret")


# Stores and disks that fail


def answered(status: int) -> Exception:
    return aiohttp.ClientResponseError(None, (), status=status)  # type: ignore[arg-type]


def of_s3(status: int, code: str) -> Exception:
    """What s3fs makes of an answer."""
    error = OSError(errno.EIO, code)
    error.__cause__ = ClientError(
        {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"
    )
    return error


def of_the_web(cause: Exception) -> Exception:
    """What fsspec makes of any failure of a web server."""
    error = FileNotFoundError("https://host/a.pth")
    error.__cause__ = cause
    return error


PASSING = [
    OSError(errno.EIO, "a disk"),
    ConnectionResetError(),
    TimeoutError(),
    aiohttp.ClientPayloadError(),
    of_the_web(aiohttp.ClientConnectionError()),
    of_the_web(answered(503)),
    answered(429),
    of_s3(500, "InternalError"),
    of_s3(503, "SlowDown"),
    ReadTimeoutError(endpoint_url="https://host"),
    EndpointConnectionError(endpoint_url="https://host"),
    ConnectTimeoutError(endpoint_url="https://host"),
]
LASTING = [
    PermissionError(),
    IsADirectoryError(),
    ValueError("Protocol not known"),
    ImportError("install gcsfs"),
    answered(403),
    of_the_web(answered(401)),
    of_s3(403, "AccessDenied"),
    NoCredentialsError(),
]


@pytest.fixture
def failing(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[Exception]]]:
    """A file whose store fails with each of these errors before it works; waits take no time."""
    uri = put(bucket, "a.pth", b"abc")
    errors: list[Exception] = []
    kind = type(fsspec.core.url_to_fs(bucket)[0])
    fetch = kind.get_file

    def get_file(self: Any, *arguments: Any, **options: Any) -> Any:
        if errors:
            raise errors.pop(0)
        return fetch(self, *arguments, **options)

    monkeypatch.setattr(kind, "get_file", get_file)
    stamina.set_testing(True, attempts=3)
    yield uri, errors
    stamina.set_testing(False)


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_fault_that_passes_is_retried(
    failing: tuple[str, list[Exception]], error: Exception
) -> None:
    uri, errors = failing
    errors += [error, error]
    with local_files(uri) as (copy,):
        assert copy.read_bytes() == b"abc"


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_store_that_keeps_failing_is_no_fault_of_the_weights(
    failing: tuple[str, list[Exception]], error: Exception
) -> None:
    """A run on many machines goes on with its other workers, and with another one later."""
    uri, errors = failing
    errors += [error] * 3
    with pytest.raises(TransientStorageError, match="did not answer"), local_files(uri):
        pass
    assert errors == []


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_a_fault_that_stays_is_not_retried(
    failing: tuple[str, list[Exception]], error: Exception
) -> None:
    uri, errors = failing
    errors += [error] * 3
    with pytest.raises(WeightsError), local_files(uri):
        pass
    assert len(errors) == 2


def test_a_full_disk_is_a_fault_of_this_machine(failing: tuple[str, list[Exception]]) -> None:
    uri, errors = failing
    errors += [OSError(errno.ENOSPC, "No space left on device")] * 3
    with pytest.raises(StorageError, match="room in the temporary folder"), local_files(uri):
        pass
    assert len(errors) == 2


def test_a_digest_is_retried_too(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = put(bucket, "a.pth", b"abc")
    errors = [ConnectionResetError()]
    digest = source._file_sha256

    def fail(*arguments: Any) -> str:
        if errors:
            raise errors.pop()
        return digest(*arguments)

    monkeypatch.setattr(source, "_file_sha256", fail)
    stamina.set_testing(True, attempts=2)
    try:
        assert source_sha256(uri) == hashlib.sha256(b"abc").hexdigest()
    finally:
        stamina.set_testing(False)


@pytest.mark.parametrize(
    ("source_text", "expected"),
    [
        ("/data/a b.pth", "/data/a b.pth"),
        ("s3://bucket/key.pth", "s3://bucket/key.pth"),
        ("https://user:secret@host:8/a.pth?X-Amz-Signature=secret#x", "https://host:8/a.pth"),
    ],
)
def test_shown_hides_credentials(source_text: str, expected: str) -> None:
    assert shown(source_text) == expected


def test_message_of_a_failed_read_holds_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        source_sha256(f"file://user:secret@host{tmp_path}/a.pth?token=secret")
    assert "secret" not in str(caught.value)
