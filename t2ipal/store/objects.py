"""Named objects in a local folder or an S3 bucket, behind the same six operations.

Owns atomic and conditional writes. Knows nothing of what the bytes mean.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t2ipal.config import require

TEMPORARY_PREFIX = ".part-"


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
        """Creates one object; False, and nothing written, where it exists. One writer wins."""
        return self._backend.write_if_absent(key, data)

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

    @property
    def _client(self) -> Any:
        if self._opened is None:
            import boto3
            from botocore.config import Config

            self._opened = boto3.client(
                "s3",
                endpoint_url=self.endpoint_url,  # None: boto3 looks at AWS_ENDPOINT_URL itself
                config=Config(
                    retries={"mode": "adaptive", "max_attempts": 10},
                    # The newer default checksums are refused by several servers that are not AWS.
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        return self._opened

    def read(self, key: str) -> bytes:
        with self._clear_errors(key):
            reply = self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            return reply["Body"].read()

    def write(self, key: str, data: bytes) -> None:
        with self._clear_errors(key):
            self._client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data)

    def write_if_absent(self, key: str, data: bytes) -> bool:
        with self._clear_errors(key):
            try:
                self._client.put_object(
                    Bucket=self.bucket, Key=self.prefix + key, Body=data, IfNoneMatch="*"
                )
            except self._client.exceptions.ClientError as error:
                # 412: the object is there. 409: another writer of it was at work just now.
                if _status(error) == 412 or (_status(error) == 409 and self.exists(key)):
                    return False
                raise
        return True

    def exists(self, key: str) -> bool:
        try:
            with self._clear_errors(key):
                self._client.head_object(Bucket=self.bucket, Key=self.prefix + key)
        except FileNotFoundError:
            return False
        return True

    def entries(self, prefix: str) -> dict[str, float]:
        found = {}
        with self._clear_errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self.prefix + prefix
            )
            for page in pages:
                for entry in page.get("Contents", []):
                    key = entry["Key"].removeprefix(self.prefix)
                    found[key] = entry["LastModified"].timestamp()
        return found

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
            code = error.response.get("Error", {}).get("Code", "")
            if code == "NoSuchBucket":
                message = f"No bucket {self.bucket!r}. Create it first, or check the address."
                raise FileNotFoundError(message) from error
            if _status(error) == 404:
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


def _status(error: Any) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
