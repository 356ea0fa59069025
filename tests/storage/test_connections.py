from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest
import s3fs

from amg_pipeline.config import StorageSettings
from amg_pipeline.errors import ConfigError
from amg_pipeline.storage import connections
from amg_pipeline.storage.connections import configure_stores, open_filesystem


@pytest.fixture(autouse=True)
def _put_settings_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_REGION", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(name, raising=False)
    yield
    configure_stores(StorageSettings())


@pytest.mark.parametrize(
    "uri", ["zip://a.jpg::/x.zip", "tar://a::/x", "dir://x", "generic://x", "nothing://x"]
)
def test_what_is_no_store_is_refused_whatever_its_client_does(uri: str) -> None:
    with pytest.raises(ConfigError, match="scheme that fsspec knows"):
        open_filesystem(uri)


def test_a_store_that_cannot_be_reached_is_no_unknown_scheme(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr(fsspec, "filesystem", fail)
    with pytest.raises(ConnectionResetError):
        open_filesystem("gs://bucket/a")


def s3(**settings: Any) -> s3fs.S3FileSystem:
    configure_stores(StorageSettings(**settings))
    return open_filesystem("s3://bucket/a")[0]


def test_nothing_is_remembered_and_nothing_retried_behind_our_back() -> None:
    filesystem = s3(connect_timeout_seconds=3.0, read_timeout_seconds=4.0)
    config = filesystem._prepare_config_kwargs()
    assert config["retries"] == {"total_max_attempts": 1}
    assert (config["connect_timeout"], config["read_timeout"]) == (3.0, 4.0)
    filesystem.dircache["bucket"] = [{"name": "stale"}]
    assert "bucket" not in filesystem.dircache


def test_settings_reach_whatever_opens_an_address() -> None:
    configure_stores(
        StorageSettings(endpoint_url="http://127.0.0.1:9", region="r-1", profile="team")
    )
    # As weights are opened.
    filesystem, _ = fsspec.core.url_to_fs("s3://bucket/weights.pth")
    assert filesystem.endpoint_url == "http://127.0.0.1:9"
    assert filesystem.client_kwargs == {"region_name": "r-1"}
    assert filesystem.kwargs["profile"] == "team"


def test_settings_left_out_are_the_environments_again() -> None:
    assert s3(endpoint_url="http://127.0.0.1:9", anonymous=True).anon is True
    filesystem = s3()
    assert (filesystem.endpoint_url, filesystem.anon) == (None, False)


@pytest.mark.parametrize(("setting", "expected"), [(None, "of-env"), ("of-settings",) * 2])
def test_region(monkeypatch: pytest.MonkeyPatch, setting: str | None, expected: str) -> None:
    monkeypatch.setenv("AWS_REGION", "of-env")
    assert s3(region=setting).client_kwargs == {"region_name": expected}


@pytest.mark.parametrize(("value", "expected"), [("YES", True), ("1", True), ("no", False)])
def test_anonymous_by_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", value)
    assert s3().anon is expected


def test_the_users_own_fsspec_settings_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"s3": {"config_kwargs": {"signature_version": "s3v4"}, "requester_pays": True}}
    monkeypatch.setattr(connections, "_USERS_OWN", own)
    filesystem = s3(region="r-1")
    assert filesystem.requester_pays
    config = filesystem._prepare_config_kwargs()
    assert (config["signature_version"], config["max_pool_connections"]) == ("s3v4", 64)


@pytest.mark.parametrize(
    ("uri", "package", "extra"),
    [
        ("gs://bucket/a", "gcsfs", "gcs"),
        ("gcs://bucket/a", "gcsfs", "gcs"),
        ("az://container/a", "adlfs", "azure"),
        ("abfs://container/a", "adlfs", "azure"),
    ],
)
def test_missing_packages_are_named(
    monkeypatch: pytest.MonkeyPatch, uri: str, package: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for scheme in ("gs", "gcs", "az", "abfs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, scheme, raising=False)
    with pytest.raises(ConfigError, match=rf"pip install 'amg_pipeline\[{extra}\]'"):
        open_filesystem(uri)


def test_azure_without_an_account_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(scheme: str, **options: object) -> None:
        raise ValueError("Must provide either a connection_string or account_name")

    monkeypatch.setattr(fsspec, "filesystem", refuse)
    with pytest.raises(ConfigError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        open_filesystem("az://container/a")
