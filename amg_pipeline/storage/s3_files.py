"""Objects of S3 and of the stores that speak its protocol: each operation is one request.

s3fs keeps the session, and nothing else of it is used. Its own operations look things up before
they act, retry some faults and not others, take a listing for an answer, and read a body that was
cut short as a whole one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from fsspec.asyn import sync

from amg_pipeline.errors import StorageError
from amg_pipeline.storage.connections import request_timeout_s
from amg_pipeline.storage.content_types import content_type_of
from amg_pipeline.storage.faults import DamagedBodyError
from amg_pipeline.storage.local_files import Child, RetriedCall
from amg_pipeline.storage.remote_files import RemoteFiles

#: Of an object that came in one piece, an ETag is the MD5 of its bytes: on most stores, and unless
#: it is encrypted with a key of the customer's.
_MD5 = re.compile(r"[0-9a-f]{32}")
#: Of an upload in parts; S3 takes 10,000 of them.
_PART_BYTES = 64 * 2**20
_ABSENT = frozenset({"404", "NoSuchKey"})

_Result = TypeVar("_Result")


class S3Files(RemoteFiles):
    """The raw operations of an `ObjectStore` on S3; they raise botocore's errors."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        # A bucket may be an access point's long name. The rest is taken as it is: s3fs would read
        # `?versionId=` in it.
        self._bucket: str = self._filesystem.split_path(self._base)[0]
        self._prefix = self._base.removeprefix(self._bucket).lstrip("/")

    def read(self, key: str) -> bytes:
        """Read one object whole.

        Raises:
            DamagedBodyError: If the bytes are not those that the store announced.
        """
        data, etag = self._get(key)
        if etag is None or hashlib.md5(data, usedforsecurity=False).hexdigest() == etag:
            return data
        # Some stores' ETags only look like an MD5: then a second look finds the same.
        if self.size(key) == len(data) and self._get(key)[0] == data:
            return data
        raise DamagedBodyError

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Read the bytes of an object from `start` to before `stop`."""
        if stop <= start:
            return b""
        data, _ = self._get(key, Range=f"bytes={start}-{stop - 1}")
        if len(data) != stop - start:
            raise DamagedBodyError
        return data

    def size(self, key: str) -> int:
        """Tell the size of an object in bytes."""
        return int(self._call("head_object", Key=self._key(key))["ContentLength"])

    def put(self, key: str, data: bytes) -> None:
        """Write an object by one request, up to S3's limit of 5 GB."""
        kind = content_type_of(self._key(key))
        told = {"ContentType": kind} if kind else {}
        self._call("put_object", Key=self._key(key), Body=data, **told)

    def upload(self, key: str, path: str, retry: RetriedCall) -> None:
        """Make an object of a local file, in parts that are tried again one by one.

        The object appears when all parts are there and the last request joins them.
        """
        size = Path(path).stat().st_size
        if size <= _PART_BYTES:
            retry(lambda: self.put(key, Path(path).read_bytes()))
            return
        place = {"Key": self._key(key)}
        started = retry(lambda: self._call("create_multipart_upload", **place))
        place["UploadId"] = started["UploadId"]
        try:
            parts = [
                {"PartNumber": number, "ETag": retry(partial(self._put_part, place, path, number))}
                for number in range(1, 1 - (-size // _PART_BYTES))
            ]
            joined = {"Parts": parts}
            retry(lambda: self._call("complete_multipart_upload", **place, MultipartUpload=joined))
        except BaseException:
            # Parts that are neither joined nor given up are stored, and paid for, unseen.
            with suppress(StorageError, FileNotFoundError):
                retry(lambda: self._call("abort_multipart_upload", **place))
            raise

    def _put_part(self, place: dict[str, str], path: str, number: int) -> str:
        with Path(path).open("rb") as file:
            file.seek((number - 1) * _PART_BYTES)
            body = file.read(_PART_BYTES)
        return str(self._call("upload_part", **place, PartNumber=number, Body=body)["ETag"])

    def create(self, key: str, data: bytes) -> None:
        """Write an object by one request that the store refuses (HTTP 412) if there is one."""
        self._call("put_object", Key=self._key(key), Body=data, IfNoneMatch="*")

    def kind(self, key: str) -> str | None:
        """Tell whether a key is that of a `"file"`, a `"folder"` or of nothing."""
        path = self._key(key)
        if path and self.exists(key):
            return "file"
        # Asked of a bucket as well, so that a missing one is an error.
        found = self._call("list_objects_v2", Prefix=f"{path}/" if path else "", MaxKeys=1)
        return "folder" if found.get("Contents") or not path else None

    def exists(self, key: str) -> bool:
        """Tell whether an object has this key."""
        try:
            self._call("head_object", Key=self._key(key))
        except ClientError as error:
            if error.response["Error"].get("Code") not in _ABSENT:
                raise
            return False
        return True

    def page(self, key: str, token: str | None, *, is_deep: bool) -> tuple[list[Child], str | None]:
        """List the next 1000 objects below a key, in order of their keys' bytes.

        Args:
            key: The folder.
            token: As the page before gave it; None for the first page.
            is_deep: Whether to list what lies in folders below, too.

        Returns:
            The objects, their names relative to the folder, and the token of the next page.
        """
        path = self._key(key)
        prefix = f"{path}/" if path else ""
        found = self._call(
            "list_objects_v2",
            Prefix=prefix,
            **({} if is_deep else {"Delimiter": "/"}),
            **({"ContinuationToken": token} if token else {}),
        )
        children = [
            Child(
                entry["Key"][len(prefix) :],
                is_folder=False,
                size=int(entry["Size"]),
                etag=str(entry["ETag"]).strip('"') if entry.get("ETag") else None,
                modified=entry["LastModified"].timestamp() if "LastModified" in entry else None,
            )
            for entry in found.get("Contents", ())
            # A key that ends in a slash marks an empty folder.
            if not entry["Key"].endswith("/")
        ]
        return children, found.get("NextContinuationToken") if found.get("IsTruncated") else None

    def copy(self, source: str, destination: str) -> None:
        """Copy an object inside the store, up to S3's limit of 5 GB."""
        self._call(
            "copy_object",
            Key=self._key(destination),
            CopySource={"Bucket": self._bucket, "Key": self._key(source)},
        )

    def remove(self, key: str) -> None:
        """Remove an object."""
        self._call("delete_object", Key=self._key(key))

    def _key(self, key: str) -> str:
        return "/".join(filter(None, (self._prefix, key)))

    def _get(self, key: str, **arguments: Any) -> tuple[bytes, str | None]:
        """Get an object, and the MD5 that it must have where the store tells."""

        async def get() -> tuple[bytes, str | None]:
            client = await self._filesystem.set_session()
            answer = await client.get_object(Bucket=self._bucket, Key=self._key(key), **arguments)
            async with answer["Body"] as body:
                data = bytes(await body.read())
            if len(data) != answer["ContentLength"]:
                raise DamagedBodyError
            return data, _md5_of(answer)

        return self._wait_for(get())

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        async def call() -> dict[str, Any]:
            client = await self._filesystem.set_session()
            answer: dict[str, Any] = await getattr(client, operation)(
                Bucket=self._bucket, **arguments
            )
            return answer

        return self._wait_for(call())

    def _wait_for(self, request: Coroutine[Any, Any, _Result]) -> _Result:
        """Run a request on fsspec's own thread, which serves all others of the process."""
        loop = self._filesystem.loop
        result: _Result = sync(loop, lambda: request, timeout=request_timeout_s())
        return result


def _md5_of(answer: dict[str, Any]) -> str | None:
    is_encrypted = str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or (
        "SSECustomerAlgorithm" in answer
    )
    etag = str(answer.get("ETag", "")).strip('"')
    return etag if _MD5.fullmatch(etag) and not is_encrypted else None
