"""What tests know of an S3 server, whichever it is."""

from __future__ import annotations

import functools
import secrets
from dataclasses import dataclass, replace
from typing import Any

import botocore.config
import botocore.session


@dataclass(frozen=True)
class S3Server:
    """A server on this machine, and the key of a user who may do all on it."""

    endpoint: str
    access_key: str
    secret_key: str

    def new_bucket(self) -> str:
        """Make an empty bucket and return its name."""
        name = f"test-{secrets.token_hex(8)}"
        self.client().create_bucket(Bucket=name)
        return name

    def through(self, endpoint: str) -> S3Server:
        """The same server behind a proxy."""
        return replace(self, endpoint=endpoint)

    def environment(self) -> dict[str, str]:
        """The variables by which programs find the server and its user."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            # No other account and no metadata server of a cloud machine is asked.
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @functools.cache  # noqa: B019  # there are a handful of servers, and a client takes a second
    def client(self) -> Any:
        """A plain botocore client, to look at the server without the package."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=botocore.config.Config(
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def objects(self, bucket: str, prefix: str = "") -> dict[str, bytes]:
        """Everything below a prefix, by key."""
        client = self.client()
        return {
            key: client.get_object(Bucket=bucket, Key=key)["Body"].read()
            for key in self.keys(bucket, prefix)
        }

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """All keys below a prefix, sorted as the server does."""
        pages = self.client().get_paginator("list_objects_v2")
        return [
            entry["Key"]
            for page in pages.paginate(Bucket=bucket, Prefix=prefix)
            for entry in page.get("Contents", [])
        ]
