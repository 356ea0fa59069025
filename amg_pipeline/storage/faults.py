"""Which errors of disks and object stores mean what, and which are worth another try.

They are recognised by class name, code, number and HTTP status; see `client_errors`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar

import stamina

from amg_pipeline.errors import (
    CommitConflictError,
    StorageAccessError,
    StorageError,
    TransientStorageError,
)
from amg_pipeline.storage.client_errors import (
    chain_of,
    code_of,
    describe,
    errno_of,
    has_base,
    status_of,
    statuses_of,
)

_Result = TypeVar("_Result")

_MISSING_STATUSES = frozenset({404, 410})
_DENIED_STATUSES = frozenset({401, 403})
_PRECONDITION_FAILED = 412
_TRANSIENT_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
#: Refusals with another status than those of `_DENIED_STATUSES`.
_DENIED_CODES = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
#: What keeps a request from being sent: no credentials, or not the ones that were named.
_DENIED_CLASSES = frozenset(
    {
        "ClientAuthenticationError",
        "DefaultCredentialsError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "RefreshError",
    }
)
_BUCKET_CODES = frozenset({"ContainerNotFound", "NoSuchBucket"})
#: Refusals of one object, whoever asks: it lies in an archive.
_OBJECT_CODES = frozenset({"InvalidObjectState"})
#: Of one web page that cannot be had, nothing follows for the others of a run.
_WEB_CLASSES = frozenset({"ClientResponseError"})
_TRANSIENT_CODES = frozenset(
    {
        "BadDigest",
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",
        "IncompleteBody",
        "InternalError",
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "RequestTimeoutException",
        "ServerBusy",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
        "XAmzContentSHA256Mismatch",
    }
)
_TRANSIENT_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.EPIPE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
_TRANSIENT_CLASSES = frozenset(
    {
        "DamagedBodyError",
        # aiohttp
        "ClientConnectionError",
        "ClientPayloadError",
        # botocore and http.client
        "ConnectionClosedError",
        "ConnectTimeoutError",
        "CredentialRetrievalError",
        "EndpointConnectionError",
        "HTTPClientError",
        "IncompleteRead",
        "IncompleteReadError",
        "ReadTimeoutError",
        "ResponseParserError",
        "ResponseStreamingError",
        # azure and google
        "ServiceRequestError",
        "ServiceResponseError",
        "TransportError",
    }
)
#: Bases of the errors that store clients raise without being an OSError.
_CLIENT_BASES = frozenset(
    {"AzureError", "BotoCoreError", "ClientError", "GoogleAuthError", "HttpError"}
)
_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


class DamagedBodyError(Exception):
    """The bytes that came are not those that the store announced."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a transient fault is retried; waits double and are jittered.

    The defaults outlast a throttled prefix or a server's restart of half a minute.
    """

    attempts: int = 8
    timeout_s: float = 180.0
    wait_initial_s: float = 0.2
    wait_max_s: float = 15.0
    wait_jitter_s: float = 1.0


def retry_transient(policy: RetryPolicy, action: str, operation: Callable[[], _Result]) -> _Result:
    """Run one storage operation; translate its errors and retry the transient ones.

    Args:
        policy: Bounds of the retries.
        action: What is done, for the message: `"write masks/part-... to /out"`.
        operation: Does the work in one step that may be repeated.

    Raises:
        FileNotFoundError: If the object does not exist.
        CommitConflictError: If an object that was to be created exists.
        StorageAccessError: If the store refuses the caller, or has no such bucket.
        TransientStorageError: If the fault is transient and the retries are used up.
        StorageError: If the fault is permanent.
    """

    def attempt() -> _Result:
        with _Translation(action):
            return operation()

    caller = stamina.RetryingCaller(
        attempts=policy.attempts,
        timeout=policy.timeout_s,
        wait_initial=policy.wait_initial_s,
        wait_max=policy.wait_max_s,
        wait_jitter=policy.wait_jitter_s,
    )
    return caller(TransientStorageError, attempt)


def translate(error: BaseException, action: str) -> Exception | None:
    """Find the package's own error for one of a disk or an object store.

    Returns:
        The error to raise instead; None where `error` is not about storage at all.
    """
    chain = list(chain_of(error))
    reason = describe(chain)
    if any(code_of(link) in _BUCKET_CODES for link in chain):
        return StorageAccessError(
            f"{_capital(action)}: the bucket must exist. Received: {reason}. Create it, or check "
            "its name and the store's address"
        )
    if any(isinstance(link, FileNotFoundError | NotADirectoryError) for link in chain) or (
        status_of(chain) in _MISSING_STATUSES
    ):
        return FileNotFoundError(errno.ENOENT, f"{_capital(action)}: nothing is there ({reason})")
    if isinstance(error, FileExistsError) or status_of(chain) == _PRECONDITION_FAILED:
        return CommitConflictError(
            f"{_capital(action)}: the object must not exist yet. Received: one that does"
        )
    if any(_is_denied(link) for link in chain) or status_of(chain) in _DENIED_STATUSES:
        is_of_store = any(_is_of_store(link) for link in chain)
        return (StorageAccessError if is_of_store else StorageError)(
            f"{_capital(action)}: access must be permitted. Received: {reason}. "
            "Check the permissions and credentials"
        )
    if any(errno_of(link) in _FULL_ERRNOS for link in chain):
        return StorageError(
            f"{_capital(action)}: the disk is full ({reason}). Free space there; the same command "
            "then resumes"
        )
    if _is_transient(chain):
        return TransientStorageError(
            f"{_capital(action)}: the store did not answer as it should. Received: {reason}"
        )
    if any(isinstance(link, OSError) or has_base(link, _CLIENT_BASES) for link in chain):
        return StorageError(f"{_capital(action)} failed. Received: {reason}")
    return None


class _Translation:
    """Raises the translated error instead of the original one."""

    def __init__(self, action: str) -> None:
        self._action = action

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        translated = translate(error, self._action) if isinstance(error, Exception) else None
        if translated is not None:
            raise translated from error


def _is_transient(chain: list[BaseException]) -> bool:
    if any(code_of(link) in _TRANSIENT_CODES for link in chain):
        return True
    if status_of(chain) is not None:
        return status_of(chain) in _TRANSIENT_STATUSES
    return any(
        isinstance(link, TimeoutError | ConnectionError)
        or errno_of(link) in _TRANSIENT_ERRNOS
        or has_base(link, _TRANSIENT_CLASSES)
        for link in chain
    )


def _is_denied(link: BaseException) -> bool:
    return (
        isinstance(link, PermissionError)
        or errno_of(link) == errno.EROFS
        or code_of(link) in _DENIED_CODES
        or has_base(link, _DENIED_CLASSES)
        or _is_forbidden_by_google(link)
    )


def _is_of_store(link: BaseException) -> bool:
    """Tell whether a refusal is an object store's, and may be meant for the whole run."""
    if code_of(link) in _OBJECT_CODES:
        return False
    is_coded = code_of(link) is not None or any(statuses_of(link))
    is_named = has_base(link, _DENIED_CLASSES) or _is_forbidden_by_google(link)
    return (is_coded or is_named) and not has_base(link, _WEB_CLASSES)


def _is_forbidden_by_google(link: BaseException) -> bool:
    """HTTP 403 of Google's is a bare OSError in gcsfs."""
    return type(link) is OSError and str(link).startswith("Forbidden: ")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
