"""How this process reaches object stores: addresses, time-outs, and no credentials of our own.

The settings of a run are laid over fsspec's own configuration, so that they hold for every address
of that run, wherever it is opened. What they leave open comes from the environment (`AWS_*`,
`FSSPEC_*`) and the stores' own files, as for any other program.
"""

from __future__ import annotations

import copy
import os
from typing import Any

import fsspec

from amg_pipeline.config import StorageSettings
from amg_pipeline.errors import ConfigError
from amg_pipeline.storage.uris import redact, scheme_of

S3_SCHEMES = ("s3", "s3a")
GOOGLE_SCHEMES = ("gs", "gcs")
_AZURE_SCHEMES = ("az", "abfs", "abfss")
#: The extra of this package that brings a scheme's file system.
_EXTRAS = {**dict.fromkeys(GOOGLE_SCHEMES, "gcs"), **dict.fromkeys(_AZURE_SCHEMES, "azure")}
#: More than the threads of any worker; botocore's own 10 would make them wait for each other.
_CONNECTIONS = 64
#: What fsspec raises for schemes that need more than an address: archives, caches, services that
#: are not there.
_NOT_ALONE = (AttributeError, LookupError, OSError, RuntimeError)
_STORES = (*S3_SCHEMES, *GOOGLE_SCHEMES, *_AZURE_SCHEMES)
_YES = ("1", "true", "yes", "on")

#: What the user's own files and variables say, before any run's settings.
_USERS_OWN = copy.deepcopy(fsspec.config.conf)
_current = StorageSettings()


def configure_stores(settings: StorageSettings) -> None:
    """Let this process reach object stores as a run's settings say; only the last call counts."""
    global _current
    _current = settings
    ours: dict[str, dict[str, Any]] = {
        "s3": _given(
            endpoint_url=settings.endpoint_url,
            profile=settings.profile,
            anon=settings.anonymous or None,
            client_kwargs=_given(region_name=settings.region) or None,
        )
    }
    if settings.anonymous:
        ours |= {scheme: {"token": "anon"} for scheme in GOOGLE_SCHEMES}
        ours |= {scheme: {"anon": True} for scheme in _AZURE_SCHEMES}
    conf = fsspec.config.conf
    for scheme in {*conf, *ours}:
        conf[scheme] = {**_USERS_OWN.get(scheme, {}), **ours.get(scheme, {})}


def request_timeout_s() -> float:
    """Tell how many seconds one request may take in all."""
    return _current.request_timeout_seconds


def open_filesystem(uri: str) -> tuple[Any, str]:
    """Open the file system of a URI; a process has one for each store and set of options.

    Only the scheme decides; chains such as `zip://...::s3://...` are not followed, because `::`
    may be part of an object's name.

    Returns:
        The fsspec file system, and the URI's path in it.

    Raises:
        ConfigError: If the scheme is unknown or its package is not installed.
    """
    scheme = scheme_of(uri)
    try:
        filesystem = fsspec.filesystem(scheme, **_options(scheme or ""))
        path = str(filesystem._strip_protocol(uri))
    except ImportError as error:
        extra = _EXTRAS.get(scheme or "")
        repair = f"pip install 'amg_pipeline[{extra}]'" if extra else "install its fsspec package"
        raise ConfigError(
            f"{redact(uri)} needs a package that is not installed: {repair}"
        ) from error
    except (ValueError, TypeError) as error:
        if scheme in _AZURE_SCHEMES:
            # The error's own text may hold a part of the connection string.
            raise ConfigError(
                f"{redact(uri)} needs an account: set AZURE_STORAGE_ACCOUNT_NAME and a way to sign "
                "in, or AZURE_STORAGE_CONNECTION_STRING. Received: neither, or a malformed one"
            ) from None
        raise _unknown_scheme(uri) from error
    except _NOT_ALONE as error:
        if scheme in _STORES:
            raise  # a fault of the network, say, which may pass
        raise _unknown_scheme(uri) from error
    if scheme == "memory" and not path.startswith("/"):
        # Its own parsing gives up at names with `::`.
        path = f"/{path}"
    return filesystem, path


def _unknown_scheme(uri: str) -> ConfigError:
    return ConfigError(
        "An address must be a path or start with a scheme that fsspec knows, such as s3:// or "
        f"gs://. Received: {redact(uri)}"
    )


def _options(scheme: str) -> dict[str, Any]:
    """Choose what the clients do by themselves: not remember listings, not retry behind our back.

    A listing that is remembered misses what others write, and retries inside of retries multiply.
    """
    if scheme in S3_SCHEMES:
        return _s3_options()
    if scheme in GOOGLE_SCHEMES:
        return {"use_listings_cache": False, "requests_timeout": _current.request_timeout_seconds}
    if scheme in _AZURE_SCHEMES:
        return {
            "use_listings_cache": False,
            "connection_timeout": _current.connect_timeout_seconds,
            "read_timeout": _current.read_timeout_seconds,
        }
    return {}


def _s3_options() -> dict[str, Any]:
    users = {name: v for part in S3_SCHEMES for name, v in fsspec.config.conf.get(part, {}).items()}
    options: dict[str, Any] = {
        "use_listings_cache": False,
        "config_kwargs": {
            "connect_timeout": _current.connect_timeout_seconds,
            "read_timeout": _current.read_timeout_seconds,
            "max_pool_connections": _CONNECTIONS,
            # Beyond what S3 requires, many stores misread them. What is sent is protected by its
            # signature, what is received by its length and ETag.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            **users.get("config_kwargs", {}),
            "retries": {"total_max_attempts": 1},
        },
    }
    # botocore knows AWS_DEFAULT_REGION only; all other programs read AWS_REGION.
    region = os.environ.get("AWS_REGION")
    if region and not users.get("client_kwargs", {}).get("region_name"):
        options["client_kwargs"] = {**users.get("client_kwargs", {}), "region_name": region}
    if os.environ.get("AWS_NO_SIGN_REQUEST", "").lower() in _YES:
        options["anon"] = True
    return options


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
