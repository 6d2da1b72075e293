"""Objects under a prefix of an S3 bucket: requests, parts, conditions, and what a refusal means.

Owns trying again where a server or a connection fails. Imports boto3 only when it is first used.
"""

import contextlib
import os
import random
import re
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from t2ipal.config import require
from t2ipal.store.entries import Entry

PROBE_PREFIX = ".probe-"
"""Of objects that ask a server what it can; no listing shows one that a killed driver left."""
MULTIPART_BYTES = 64 * 2**20
"""Larger objects go to a bucket in parts: a connection that breaks costs one part."""
PART_BYTES = 16 * 2**20
PIECE_BYTES = 8 * 2**20
"""Of an object that is read piece by piece."""
TOKEN_NAME = "t2ipal-upload"
"""Of an object that came in parts, in its metadata: tells which upload it came from."""
PAGE_KEYS = 1000
"""Keys of one reply to a listing: as many as S3 gives."""
MAX_ATTEMPTS = 10
"""At every request to a bucket, the first one included."""
MAX_PAUSE_S = 20.0
"""Between two attempts; the first pauses are shorter."""
_RENEW = "Get new credentials and run the same command again: what was written before is kept."
REFUSALS = {
    "InvalidAccessKeyId": "Check AWS_ACCESS_KEY_ID, or the profile, and whether endpoint_url is "
    "the server that knows it.",
    "SignatureDoesNotMatch": "Check AWS_SECRET_ACCESS_KEY: it does not belong to the access key.",
    "RequestTimeTooSkewed": "Check the clock of this machine: it is too far from the server's.",
    **dict.fromkeys(("ExpiredToken", "TokenRefreshRequired", "InvalidToken"), _RENEW),
}
"""What to do where a server refuses access for one of these reasons; some come with status 400."""
FULL = ("QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded")
"""Codes of servers that have no room left; Ceph sends its own with status 403."""
OTHER_REGION = ("AuthorizationHeaderMalformed", "InvalidRegion", "PermanentRedirect")
"""Codes for a bucket of another region; MinIO names its own region in errors of every kind."""

ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
"""Where boto3 looks for a server, in its order."""

# boto3's default session must not be used by two threads at once.
_connecting = threading.Lock()


class Bucket:
    """Objects under a prefix of an S3 bucket, on AWS or any server that speaks S3."""

    def __init__(self, uri: str, endpoint_url: str | None):
        self.bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        require(bool(self.bucket), f"An S3 store is s3://bucket/prefix, got {uri!r}.")
        # Not left to boto3: the environment of workers on other machines does not name it.
        named = (os.environ.get(name) for name in ENDPOINT_VARIABLES)
        self.endpoint_url = endpoint_url or next(filter(None, named), None)
        _check_endpoint(self.endpoint_url or "")
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
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
                    endpoint_url=self.endpoint_url,
                    config=Config(
                        retries={"mode": "adaptive", "total_max_attempts": MAX_ATTEMPTS},
                        # Several servers that are not AWS refuse the newer default checksums.
                        request_checksum_calculation="when_required",
                        response_checksum_validation="when_required",
                    ),
                )
        return self._opened

    def read(self, key: str) -> bytes:
        """As `Store.read`."""
        return self._get(key)

    def pieces(self, key: str) -> Iterator[bytes]:
        """As `Store.pieces`."""
        with self._clear_errors(key):
            size = self._client.head_object(**self._named(key))["ContentLength"]
        for start in range(0, size, PIECE_BYTES):
            yield self._get(key, Range=f"bytes={start}-{start + PIECE_BYTES - 1}")

    def _get(self, key: str, **part: str) -> bytes:
        """An object, or a part of it."""
        from botocore.exceptions import (
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        with self._clear_errors(key):
            attempt = 1
            while True:
                body = self._client.get_object(**self._named(key), **part)["Body"]
                try:
                    # botocore's own attempts end where the body begins.
                    return body.read()
                except (IncompleteReadError, ReadTimeoutError, ResponseStreamingError):
                    if attempt == MAX_ATTEMPTS:
                        raise
                _pause(attempt)
                attempt += 1

    def write(self, key: str, data: bytes) -> None:
        """As `Store.write`."""
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

    def abort_uploads(self, min_age_s: float) -> int:
        """As `Store.abort_uploads`."""
        if not self.prefix:
            return 0
        began_before, count = time.time() - min_age_s, 0
        with self._clear_errors(""):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=self.prefix
            )
            uploads = [upload for page in pages for upload in page.get("Uploads", [])]
            for upload in uploads:
                if upload["Initiated"].timestamp() > began_before:
                    continue
                # Where it is gone by now, someone else has ended it.
                with contextlib.suppress(self._client.exceptions.NoSuchUpload):
                    self._client.abort_multipart_upload(
                        Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
                    count += 1
        return count

    def require_writable(self, key: str) -> None:
        """As `Store.require_writable`: asks the server by writing a small object."""
        self.conditional_writes()

    def write_if_absent(self, key: str, data: bytes) -> bool:
        """As `Store.write_if_absent`."""
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

    def delete(self, key: str) -> None:
        """As `Store.delete`."""
        with self._clear_errors(key):
            self._client.delete_object(**self._named(key))

    def conditional_writes(self) -> bool:
        """As `Store.conditional_writes`."""
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

    def region(self) -> str:
        """As `Store.region`."""
        with self._clear_errors(""):
            headers = self._client.head_bucket(Bucket=self.bucket)["ResponseMetadata"][
                "HTTPHeaders"
            ]
        return headers.get("x-amz-bucket-region", "")

    def exists(self, key: str) -> bool:
        """As `Store.exists`."""
        try:
            with self._clear_errors(key):
                self._client.head_object(**self._named(key))
        except FileNotFoundError:
            return False
        return True

    def entries(self, prefix: str, recursive: bool = True) -> dict[str, Entry]:
        """As `Store.entries`, in no order."""
        found = {}
        for page in self._pages(prefix, recursive):
            for entry in page.get("Contents", []):
                key = entry["Key"].removeprefix(self.prefix)
                if not key.startswith(PROBE_PREFIX):
                    modified, size = entry["LastModified"].timestamp(), entry["Size"]
                    found[key] = Entry(modified, size, f"{size}-{entry['ETag']}")
        return found

    def folders(self, beginning: str) -> list[str]:
        """As `Store.folders`, in no order."""
        pages = self._pages(beginning, recursive=False)
        prefixes = (each["Prefix"] for page in pages for each in page.get("CommonPrefixes", []))
        return [prefix.removeprefix(self.prefix).rstrip("/") for prefix in prefixes]

    def _pages(self, prefix: str, recursive: bool) -> Iterator[dict[str, Any]]:
        within = {} if recursive else {"Delimiter": "/"}
        with self._clear_errors(prefix):
            yield from self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket,
                Prefix=self.prefix + prefix,
                PaginationConfig={"PageSize": PAGE_KEYS},
                **within,
            )

    def _named(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    @contextlib.contextmanager
    def _clear_errors(self, key: str) -> Iterator[None]:
        """Turns botocore's errors into the built-in ones, without anything secret in them."""
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            CredentialRetrievalError,
            NoCredentialsError,
            ParamValidationError,
            PartialCredentialsError,
        )

        uri = f"s3://{self.bucket}/{self.prefix}{key}"
        try:
            yield
        except ClientError as error:
            raise self._clear_error(error, uri) from error
        except (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError) as error:
            raise PermissionError(
                f"No credentials for {uri}. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "a profile or an instance role."
            ) from error
        except ParamValidationError as error:
            raise ValueError(
                f"S3 takes no bucket or key of this name: {uri[:200]}. A bucket has letters, "
                "digits, dots and hyphens, a key 1,024 bytes at most."
            ) from error
        except BotoCoreError as error:
            raise OSError(f"Cannot reach {uri}: {error}") from error

    def _clear_error(self, error: Any, uri: str) -> OSError:
        """The built-in error for a reply of the server that is no success."""
        code, status = _code(error), _status(error)
        if code == "NoSuchBucket":
            return FileNotFoundError(
                f"No bucket {self.bucket!r}. Create it first, or check the address."
            )
        if status in (301, 307) or code in OTHER_REGION:
            region = _region(error)
            return OSError(
                f"Bucket {self.bucket!r} is in another region{region and f', {region}'}. Set "
                f"AWS_DEFAULT_REGION{region and f'={region}'}."
            )
        if code in FULL or status == 507:
            return OSError(
                f"No space left in bucket {self.bucket!r} ({code}). What was written before is "
                "kept: make room and run the same command again."
            )
        if status in (401, 403) or code in REFUSALS:
            remedy = REFUSALS.get(code, "Check the credentials and their rights.")
            return PermissionError(f"Access to {uri} was refused ({code or status}). {remedy}")
        if not code and status < 500:  # S3 gives one with every error, a proxy before it none
            return OSError(
                f"What answers for {uri} is no S3 server (status {status}). Check endpoint_url."
            )
        if status == 404 and code != "NoSuchUpload":
            return FileNotFoundError(f"No object {uri}.")
        reason = f"The store did not take the request for {uri} ({code or status})."
        if code == "400":  # of a request whose reply has no body
            reason += " Check whether the credentials have expired, the region and endpoint_url."
        return OSError(reason)


def _check_endpoint(url: str) -> None:
    """Raises ValueError unless the address of a server, if there is one, can be used and shown."""
    require(
        "@" not in url,
        "endpoint_url must hold no name or password: set AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY in their place.",
    )
    require(
        not url or re.match(r"https?://[^/\s]", url) is not None,
        f"endpoint_url must be http://host:port or https://host:port, got {url!r}.",
    )


def _pause(attempt: int) -> None:
    """Longer after each attempt, and never the same for two writers."""
    time.sleep(random.uniform(0, min(2**attempt / 10, MAX_PAUSE_S)))


def _status(error: Any) -> int:
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)


def _code(error: Any) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _region(error: Any) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers.get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region", "")


def _refuses_condition(error: Any) -> bool:
    """Whether a server will not have the condition, rather than the request or its body."""
    codes = ("NotImplemented", "InvalidArgument", "InvalidRequest")
    return _status(error) == 501 or (_status(error) == 400 and _code(error) in codes)
