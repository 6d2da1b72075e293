"""Named objects in a local folder or an S3 bucket, behind the same six operations.

Owns atomic and conditional writes, and trying again where a server or a connection fails. Knows
nothing of what the bytes mean.
"""

import contextlib
import os
import random
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t2ipal.config import require

TEMPORARY_PREFIX = ".part-"
"""Of files that are being written; no listing shows them."""
PROBE_PREFIX = ".probe-"
"""Of objects that ask a server what it can; no listing shows one that a killed driver left."""
MULTIPART_BYTES = 64 * 2**20
"""Larger objects go to a bucket in parts: a connection that breaks costs one part."""
PART_BYTES = 16 * 2**20
TOKEN_NAME = "t2ipal-upload"
"""Of an object that came in parts, in its metadata: tells which upload it came from."""
PAGE_KEYS = 1000
"""Keys of one reply to a listing: as many as S3 gives."""
MAX_ATTEMPTS = 10
"""At every request to a bucket, the first one included."""
MAX_PAUSE_S = 20.0
"""Between two attempts; the first pauses are shorter."""

# boto3's default session must not be used by two threads at once.
_connecting = threading.Lock()


class Store:
    """A folder of named objects: `read`, `write`, `write_if_absent`, `exists`, `list`, `times`.

    A write is all or nothing: a reader sees the old bytes, the new ones or no object, never a part.
    A store can be pickled; each process opens its own connection.
    """

    def __init__(self, uri: str | Path, endpoint_url: str | None = None):
        """Opens nothing yet.

        Args:
            uri: local path, or `s3://bucket/prefix`.
            endpoint_url: server of an S3 bucket that is not on AWS; AWS_ENDPOINT_URL does the same.
        """
        uri = str(uri)
        scheme = uri.split("://")[0] if "://" in uri else "file"
        require(scheme in ("file", "s3"), f"A store is a local path or s3://..., got {uri!r}.")
        self.endpoint_url = endpoint_url
        self._backend: _Bucket | _Folder
        if scheme == "s3":
            self._backend = _Bucket(uri, endpoint_url)
            self.uri = uri.rstrip("/")
        else:
            self._backend = _Folder(Path(uri.removeprefix("file://")).absolute())
            self.uri = str(self._backend.folder)

    def __reduce__(self):
        return Store, (self.uri, self.endpoint_url)

    def __repr__(self) -> str:
        return f"Store({self.uri!r})"

    def read(self, key: str) -> bytes:
        """All bytes of one object.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self._backend.read(key)

    def write(self, key: str, data: bytes) -> None:
        """Creates or replaces one object."""
        self._backend.write(key, data)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """Creates one object; False, and nothing written, where it exists. One writer wins.

        False may also mean that this call wrote the object: its request is sent again where the
        reply was lost, and the server refuses the second one. So compare what is there. And all
        writers of an object must write what can stand for each other: a server may lack conditional
        writes (`conditional_writes`), or let several racing writers win as OpenStack Swift does.
        """
        return self._backend.write_if_absent(key, data)

    def conditional_writes(self) -> bool:
        """Whether `write_if_absent` can leave it to the store to refuse what exists.

        A folder always can. A server is asked once, by writing and deleting a small object: for the
        driver of a run, not for each worker. Where the answer was no, `write_if_absent` looks first
        and writes then, and the last of several racing writers wins.
        """
        return self._backend.conditional_writes()

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        return self._backend.exists(key)

    def list(self, prefix: str = "") -> list[str]:
        """Sorted keys of all objects whose key starts with `prefix`."""
        return sorted(self._backend.entries(prefix))

    def times(self, prefix: str = "") -> dict[str, float]:
        """When each of those objects was last written, in seconds since 1970, by its key."""
        return dict(sorted(self._backend.entries(prefix).items()))


def read_bytes(uri: str | Path, endpoint_url: str | None = None) -> bytes:
    """All bytes of one file on a local path or at `s3://bucket/key`.

    Raises:
        FileNotFoundError: there is no such file.
    """
    folder, _, name = str(uri).rpartition("/")
    if not folder and not str(uri).startswith("/"):
        folder = "."
    return Store(folder or "/", endpoint_url).read(name)


class _Folder:
    """Objects as files under a local folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, key: str) -> bytes:
        path = self.folder / key
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(f"No file {path}.") from error
        except IsADirectoryError as error:
            raise FileNotFoundError(f"{path} is a folder, expected a file.") from error

    def write(self, key: str, data: bytes) -> None:
        with self._complete_file(key, data) as (part, path):
            part.replace(path)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        with self._complete_file(key, data) as (part, path):
            # A hard link appears at once, with all its bytes, and fails where the name is taken.
            try:
                os.link(part, path)
            except FileExistsError:
                return False
        return True

    def conditional_writes(self) -> bool:
        return True

    @contextlib.contextmanager
    def _complete_file(self, key: str, data: bytes) -> Iterator[tuple[Path, Path]]:
        """A finished temporary file beside the final path; removed afterwards if still there."""
        path = self.folder / key
        part = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield part, path
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise PermissionError(
                f"Cannot write to {path.parent} ({error.strerror}). Choose another folder."
            ) from error
        finally:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def exists(self, key: str) -> bool:
        return (self.folder / key).is_file()

    def entries(self, prefix: str) -> dict[str, float]:
        # Only the folder that the prefix names can hold matches: a run has many others.
        start, found = self.folder / prefix.rpartition("/")[0], {}
        for parent, _, names in os.walk(start):
            for name in names:
                path = Path(parent) / name
                key = path.relative_to(self.folder).as_posix()
                if key.startswith(prefix) and not name.startswith(TEMPORARY_PREFIX):
                    found[key] = path.stat().st_mtime
        return found


class _Bucket:
    """Objects under a prefix of an S3 bucket, on AWS or any server that speaks S3."""

    def __init__(self, uri: str, endpoint_url: str | None):
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        require(bool(self.bucket), f"An S3 store is s3://bucket/prefix, got {uri!r}.")
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self.endpoint_url = endpoint_url
        self._opened: Any = None
        self._conditional: bool | None = None  # not known yet

    @property
    def _client(self) -> Any:
        with _connecting:
            if self._opened is None:
                import boto3
                from botocore.config import Config

                self._opened = boto3.client(
                    "s3",
                    endpoint_url=self.endpoint_url,  # None: boto3 looks at AWS_ENDPOINT_URL itself
                    config=Config(
                        retries={"mode": "adaptive", "total_max_attempts": MAX_ATTEMPTS},
                        # Several servers that are not AWS refuse the newer default checksums.
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
        return self._opened

    def read(self, key: str) -> bytes:
        from botocore.exceptions import (
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        with self._clear_errors(key):
            attempt = 1
            while True:
                body = self._client.get_object(**self._named(key))["Body"]
                try:
                    # botocore's own attempts end where the body begins.
                    return body.read()
                except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                    if attempt == MAX_ATTEMPTS:
                        raise
                _pause(attempt)
                attempt += 1

    def write(self, key: str, data: bytes) -> None:
        with self._clear_errors(key):
            if len(data) > MULTIPART_BYTES:
                self._write_in_parts(key, data)
            else:
                self._client.put_object(**self._named(key), Body=data)

    def _write_in_parts(self, key: str, data: bytes) -> None:
        """Uploads part after part; where one fails, no part of it stays."""
        name, token = self._named(key), uuid.uuid4().hex
        created = self._client.create_multipart_upload(**name, Metadata={TOKEN_NAME: token})
        upload = {**name, "UploadId": created["UploadId"]}
        try:
            parts = []
            for number, start in enumerate(range(0, len(data), PART_BYTES), 1):
                part = data[start : start + PART_BYTES]
                reply = self._client.upload_part(**upload, PartNumber=number, Body=part)
                parts.append({"PartNumber": number, "ETag": reply["ETag"]})
            self._complete_upload(upload, parts, token)
        except BaseException:
            with contextlib.suppress(Exception):
                self._client.abort_multipart_upload(**upload)
            raise

    def _complete_upload(
        self, upload: dict[str, str], parts: list[dict[str, Any]], token: str
    ) -> None:
        client_error = self._client.exceptions.ClientError
        try:
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
        except client_error as error:
            # Where the reply was lost and the request sent again, the upload is gone, for the
            # object is there.
            head: dict[str, Any] = {}
            with contextlib.suppress(client_error):
                head = self._client.head_object(Bucket=upload["Bucket"], Key=upload["Key"])
            if _status(error) != 404 or head.get("Metadata", {}).get(TOKEN_NAME) != token:
                raise

    def write_if_absent(self, key: str, data: bytes) -> bool:
        with self._clear_errors(key):
            if self._conditional is not False:
                try:
                    return self._create(key, data)
                except self._client.exceptions.ClientError as error:
                    if not _refuses_condition(error):
                        raise
                    self._conditional = False
            if self.exists(key):
                return False
            self._client.put_object(**self._named(key), Body=data)
        return True

    def _create(self, key: str, data: bytes) -> bool:
        """One conditional request; False where the object is there."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                self._client.put_object(**self._named(key), Body=data, IfNoneMatch="*")
                return True
            except self._client.exceptions.ClientError as error:
                # 412: the object is there. 409: another writer of it was at work just now, who
                # may yet fail.
                if _status(error) == 412 or (_status(error) == 409 and self.exists(key)):
                    return False
                if _status(error) != 409 or attempt == MAX_ATTEMPTS:
                    raise
            _pause(attempt)
        raise AssertionError

    def conditional_writes(self) -> bool:
        if self._conditional is None:
            key = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
            with self._clear_errors(key):
                client_error = self._client.exceptions.ClientError
                try:
                    self._create(key, b"")
                    self._conditional = not self._create(key, b"")
                except client_error as error:
                    if not _refuses_condition(error):
                        raise
                    self._conditional = False
                # Who may not delete gets a run all the same.
                with contextlib.suppress(client_error):
                    self._client.delete_object(**self._named(key))
        return self._conditional

    def exists(self, key: str) -> bool:
        try:
            with self._clear_errors(key):
                self._client.head_object(**self._named(key))
        except FileNotFoundError:
            return False
        return True

    def entries(self, prefix: str) -> dict[str, float]:
        found = {}
        with self._clear_errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket,
                Prefix=self.prefix + prefix,
                PaginationConfig={"PageSize": PAGE_KEYS},
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    key = entry["Key"].removeprefix(self.prefix)
                    if not key.startswith(PROBE_PREFIX):
                        found[key] = entry["LastModified"].timestamp()
        return found

    def _named(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    @contextlib.contextmanager
    def _clear_errors(self, key: str) -> Iterator[None]:
        """Turns botocore's errors into the built-in ones, without anything secret in them."""
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            NoCredentialsError,
            PartialCredentialsError,
        )

        uri = f"s3://{self.bucket}/{self.prefix}{key}"
        try:
            yield
        except ClientError as error:
            code = _code(error)
            if code == "NoSuchBucket":
                message = f"No bucket {self.bucket!r}. Create it first, or check the address."
                raise FileNotFoundError(message) from error
            if _status(error) == 404 and code != "NoSuchUpload":
                raise FileNotFoundError(f"No object {uri}.") from error
            if _status(error) in (401, 403):
                raise PermissionError(
                    f"Access to {uri} was refused ({code}). Check the credentials and their rights."
                ) from error
            raise OSError(f"The store did not take the request for {uri} ({code}).") from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise PermissionError(
                f"No credentials for {uri}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "a profile or an instance role."
            ) from error
        except BotoCoreError as error:
            raise OSError(f"Cannot reach {uri}: {error}") from error


def _pause(attempt: int) -> None:
    """Longer after each attempt, and never the same for two writers."""
    time.sleep(random.uniform(0, min(2**attempt / 10, MAX_PAUSE_S)))


def _status(error: Any) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _code(error: Any) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _refuses_condition(error: Any) -> bool:
    """Whether a server will not have the condition, rather than the request or its body."""
    codes = ("NotImplemented", "InvalidArgument", "InvalidRequest")
    return _status(error) == 501 or (_status(error) == 400 and _code(error) in codes)
