from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import aiohttp
import botocore.exceptions
import pytest
import s3fs.errors
from fsspec.exceptions import FSTimeoutError
from yarl import URL

from amg_pipeline.errors import (
    CommitConflictError,
    StorageAccessError,
    StorageError,
    TransientStorageError,
)
from amg_pipeline.storage.faults import DamagedBodyError, retry_transient, translate
from tests.storage.doubles import EAGER


def s3_error(code: str, status: int) -> Exception:
    """What s3fs makes of it when the server answers with this code."""
    return s3fs.errors.translate_boto_error(raw_s3_error(code, status))


def raw_s3_error(code: str, status: int) -> Exception:
    response = {
        "Error": {"Code": code, "Message": "host-17.example"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return botocore.exceptions.ClientError(response, "PutObject")


def http_error(status: int) -> Exception:
    url = URL("https://host-17.example/a.jpg?token=secret")
    request: Any = SimpleNamespace(real_url=url)
    return aiohttp.ClientResponseError(request, (), status=status, message="no")


class AzureLikeError(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__("no")
        self.status_code = status_code


TRANSIENT = [
    pytest.param(TimeoutError(), id="time-out"),
    pytest.param(TimeoutError(), id="asyncio time-out"),
    pytest.param(FSTimeoutError(), id="fsspec time-out"),
    pytest.param(ConnectionResetError(errno.ECONNRESET, "reset"), id="reset"),
    pytest.param(OSError(errno.ESTALE, "stale"), id="stale handle of a network disk"),
    pytest.param(s3_error("SlowDown", 503), id="S3 throttling"),
    pytest.param(s3_error("InternalError", 500), id="S3 internal"),
    pytest.param(raw_s3_error("SlowDown", 503), id="botocore's own error"),
    pytest.param(raw_s3_error("503", 503), id="S3 throttling, without a body"),
    pytest.param(raw_s3_error("RequestTimeout", 400), id="S3 waited for us"),
    pytest.param(DamagedBodyError(), id="body cut short"),
    pytest.param(s3_error("ConditionalRequestConflict", 409), id="S3 conditions collide"),
    pytest.param(botocore.exceptions.ReadTimeoutError(endpoint_url="x"), id="S3 read time-out"),
    pytest.param(
        botocore.exceptions.EndpointConnectionError(endpoint_url="x"), id="S3 unreachable"
    ),
    pytest.param(aiohttp.ServerDisconnectedError(), id="HTTP server gone"),
    pytest.param(aiohttp.ClientPayloadError(), id="HTTP body cut short"),
    pytest.param(http_error(429), id="HTTP 429"),
    pytest.param(http_error(503), id="HTTP 503"),
    pytest.param(AzureLikeError(500), id="status_code 500"),
]


@pytest.mark.parametrize("error", TRANSIENT)
def test_transient_faults_are_transient(error: Exception) -> None:
    translated = translate(error, "read a")
    assert type(translated) is TransientStorageError
    assert "host-17" not in str(translated)
    assert "secret" not in str(translated)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(PermissionError(errno.EACCES, "no"), "permissions", id="permission"),
        pytest.param(OSError(errno.EROFS, "read-only"), "permissions", id="read-only disk"),
        pytest.param(http_error(403), "HTTP 403", id="HTTP denied"),
        pytest.param(OSError(errno.ENOSPC, "full"), "disk is full", id="disk full"),
        pytest.param(OSError(errno.EDQUOT, "full"), "disk is full", id="quota"),
        pytest.param(OSError(errno.EIO, "io"), "Input/output", id="broken disk"),
        pytest.param(http_error(400), "HTTP 400", id="HTTP bad request"),
    ],
)
def test_permanent_faults_are_not_retried(error: Exception, message: str) -> None:
    translated = translate(error, "read a")
    assert type(translated) is StorageError
    assert message in str(translated)
    assert str(translated).startswith("Read a")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        pytest.param(s3_error("AccessDenied", 403), "AccessDenied, HTTP 403", id="S3 denied"),
        pytest.param(s3_error("ExpiredToken", 400), "permitted", id="S3 token expired"),
        pytest.param(raw_s3_error("ExpiredToken", 400), "ExpiredToken", id="botocore's own error"),
        pytest.param(raw_s3_error("403", 403), "HTTP 403", id="S3 denied, without a body"),
        pytest.param(s3_error("NoSuchBucket", 404), "bucket must exist", id="S3 bucket missing"),
        pytest.param(AzureLikeError(403), "HTTP 403", id="Azure denied"),
        pytest.param(OSError("Forbidden: bucket/a"), "permitted", id="Google denied"),
        pytest.param(
            botocore.exceptions.NoCredentialsError(), "NoCredentialsError", id="no credentials"
        ),
        pytest.param(
            botocore.exceptions.ProfileNotFound(profile="x"), "ProfileNotFound", id="no profile"
        ),
    ],
)
def test_refusals_of_a_store_are_meant_for_the_whole_run(error: Exception, message: str) -> None:
    translated = translate(error, "read a")
    assert type(translated) is StorageAccessError
    assert message in str(translated)


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "x"),
        NotADirectoryError(errno.ENOTDIR, "x"),
        s3_error("NoSuchKey", 404),
        http_error(404),
    ],
)
def test_missing_objects_stay_recognisable(error: Exception) -> None:
    assert type(translate(error, "read a")) is FileNotFoundError


def test_existing_object_is_a_conflict() -> None:
    assert type(translate(FileExistsError(), "create a")) is CommitConflictError
    # Ceph does not say which condition it was.
    assert type(translate(raw_s3_error("PreconditionFailed", 412), "create a")) is (
        CommitConflictError
    )
    precondition = botocore.exceptions.ClientError(
        {
            "Error": {"Code": "PreconditionFailed", "Message": "x", "Condition": "If-None-Match"},
            "ResponseMetadata": {"HTTPStatusCode": 412},
        },
        "PutObject",
    )
    assert type(translate(s3fs.errors.translate_boto_error(precondition), "create a")) is (
        CommitConflictError
    )


def test_other_errors_pass_unchanged() -> None:
    assert translate(ValueError("a bug"), "read a") is None
    with pytest.raises(ValueError, match="a bug"):
        retry_transient(EAGER, "read a", lambda: int("a bug"))


class Flaky:
    def __init__(self, faults: list[Exception]) -> None:
        self.faults = faults
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.faults:
            raise self.faults.pop(0)
        return "done"


def test_transient_faults_are_retried_until_it_works() -> None:
    operation = Flaky([TimeoutError(), s3_error("SlowDown", 503)])
    assert retry_transient(EAGER, "read a", operation) == "done"
    assert operation.calls == 3


def test_retries_are_bounded() -> None:
    operation = Flaky([TimeoutError() for _ in range(9)])
    with pytest.raises(TransientStorageError, match="Read a"):
        retry_transient(EAGER, "read a", operation)
    assert operation.calls == EAGER.attempts


def test_permanent_fault_ends_at_once() -> None:
    operation = Flaky([PermissionError()])
    with pytest.raises(StorageError, match="permitted"):
        retry_transient(EAGER, "read a", operation)
    assert operation.calls == 1


def test_circular_causes_end() -> None:
    first, second = OSError(errno.EIO, "a"), OSError(errno.EIO, "b")
    first.__cause__, second.__cause__ = second, first
    assert type(translate(first, "read a")) is StorageError


@pytest.mark.parametrize("make", [s3_error, raw_s3_error])
def test_object_in_an_archive_says_nothing_of_others(make: Any) -> None:
    translated = translate(make("InvalidObjectState", 403), "read a")
    assert type(translated) is StorageError
    assert "InvalidObjectState" in str(translated)
