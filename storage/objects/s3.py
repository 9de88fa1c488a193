"""An ObjectStore in S3 or a compatible server, with boto3."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from storage.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    StorageError,
    StoreAccessError,
    StoreRefusedError,
    StoreUnavailableError,
)
from storage.objects import check_size, split_address
from storage.objects.signing import ServerClock

if TYPE_CHECKING:
    from botocore.exceptions import BotoCoreError, ClientError
    from mypy_boto3_s3 import S3Client

# Errors with HTTP status 400 that are transient; those of the second row report bytes that were damaged or lost in
# transit.
_TRANSIENT_CODES = {
    *("SlowDown", "RequestTimeout", "Throttling", "ThrottlingException", "RequestLimitExceeded"),
    *("BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"),
}
_LOST_RACE_CODES = {"PreconditionFailed", "ConditionalRequestConflict"}
_NO_ACCESS_CODES = {"NoSuchBucket", "ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed"}
"""Refused access with another status than 401 or 403."""
_UNAUTHORIZED = 401
_FORBIDDEN = 403
_PRECONDITION_FAILED = 412
_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500


@dataclass(frozen=True, kw_only=True)
class S3Settings:
    """The address of a bucket, and how to access it."""

    bucket: str
    endpoint: str | None = None
    """URL of the server; None uses AWS."""
    access_key: str | None = None
    """None, with secret_key, uses boto3's credential chain: environment, profile, instance role."""
    secret_key: str | None = None
    region: str = "us-east-1"
    public_endpoint: str | None = None
    """URL of the server for browsers, for which URLs are presigned; None uses `endpoint`."""
    public_url: str | None = None
    """URL at which the bucket's objects are public; None presigns each URL."""
    url_ttl_s: int = 7 * 24 * 3600
    """How long a presigned URL is valid; S3 allows at most a week."""
    checksums: bool = True
    """Whether puts send a SHA-256 that the server verifies; off for servers that reject the header."""
    sse: str | None = None
    """How the server encrypts objects: AES256, aws:kms or aws:kms:dsse; None uses the bucket's default."""
    sse_kms_key_id: str | None = None
    """The KMS key; None uses the account's default key."""
    timeout_s: float = 20.0
    """How long the server may send nothing during a call."""
    attempts: int = 2
    """The number of attempts at a call before StoreUnavailableError is raised."""


class S3Store:
    """An ObjectStore in a bucket. Safe to share between threads, but not with a forked process."""

    def __init__(self, settings: S3Settings, clock: ServerClock | None = None) -> None:
        self.settings = settings
        self.bucket = settings.bucket
        self._clock = clock or ServerClock()
        self._client = _connect(settings, self._clock)
        self._signer = self._client
        if settings.public_endpoint is not None:
            self._signer = _connect(replace(settings, endpoint=settings.public_endpoint), self._clock)

    def put(self, key: str, data: bytes, *, content_type: str, only_if_absent: bool = False) -> None:
        extra: dict[str, Any] = {}
        if only_if_absent:
            extra["IfNoneMatch"] = "*"
        if self.settings.checksums:
            extra["ChecksumSHA256"] = base64.b64encode(hashlib.sha256(data).digest()).decode()
        if self.settings.sse:
            extra["ServerSideEncryption"] = self.settings.sse
        if self.settings.sse_kms_key_id:
            extra["SSEKMSKeyId"] = self.settings.sse_kms_key_id
        with self._errors(self.address(key)):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=data, ContentType=content_type, **extra)

    def get(self, key: str) -> bytes:
        return self._get(self.bucket, key, None)

    def exists(self, key: str) -> bool:
        try:
            with self._errors(self.address(key)):
                self._client.head_object(Bucket=self.bucket, Key=key)
        except ObjectNotFoundError:
            return False
        return True

    def list(self, prefix: str) -> Iterator[str]:
        with self._errors(self.address(prefix)):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            for page in pages:
                yield from (found["Key"] for found in page.get("Contents", ()))

    def delete(self, key: str) -> None:
        with self._errors(self.address(key)):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def url(self, key: str) -> str:
        if self.settings.public_url is not None:
            return f"{self.settings.public_url.rstrip('/')}/{quote(key)}"
        with self._errors(self.address(key)):
            return self._signer.generate_presigned_url(
                "get_object", Params={"Bucket": self.bucket, "Key": key}, ExpiresIn=self.settings.url_ttl_s
            )

    def address(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    def get_address(self, address: str, *, max_bytes: int | None = None) -> bytes:
        bucket, key = split_address(address)
        return self._get(bucket, key, max_bytes)

    def ensure_bucket(self) -> None:
        """Create the bucket if it does not exist."""
        try:
            with self._errors(self.address("")):
                self._client.head_bucket(Bucket=self.bucket)
        except ObjectNotFoundError:
            # AWS requires the region in the request, but rejects the default region there.
            extra: Any = {}
            if self.settings.endpoint is None and self.settings.region != "us-east-1":
                extra = {"CreateBucketConfiguration": {"LocationConstraint": self.settings.region}}
            with self._errors(self.address("")):
                self._client.create_bucket(Bucket=self.bucket, **extra)

    def close(self) -> None:
        """Close the pooled connections."""
        self._client.close()

    def _get(self, bucket: str, key: str, max_bytes: int | None) -> bytes:
        address = f"s3://{bucket}/{key}"
        with self._errors(address):
            found = self._client.get_object(Bucket=bucket, Key=key)
            with found["Body"] as body:
                check_size(address, found["ContentLength"], max_bytes)
                return body.read()

    @contextmanager
    def _errors(self, address: str) -> Iterator[None]:
        """Translate boto3's errors to those of ObjectStore."""
        from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - slow, only needed here
        from botocore.parsers import ResponseParserError  # noqa: PLC0415 - as above
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as above

        where = f"{address} at {self.settings.endpoint or 'AWS'}"
        try:
            yield
        except ClientError as error:
            raise _translated(error, where, self._clock) from error
        except BotoCoreError as error:
            kind = StoreUnavailableError if _is_transient(error) else StoreAccessError
            raise kind(f"{where}: {error}") from error
        except (HTTPError, ResponseParserError) as error:  # boto3 does not wrap these when a response is truncated
            raise StoreUnavailableError(f"{where}: {error}") from error


def _connect(settings: S3Settings, clock: ServerClock) -> "S3Client":
    """A client with short timeouts. RetryPolicy handles longer outages, since it can report them."""
    import boto3  # noqa: PLC0415 - takes a third of a second, and most importers never connect
    from botocore.config import Config  # noqa: PLC0415 - as above
    from botocore.handlers import add_expect_header  # noqa: PLC0415 - as above

    mode: Any = "when_supported" if settings.checksums else "when_required"
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if settings.endpoint else "auto"},
        connect_timeout=5,
        read_timeout=settings.timeout_s,
        retries={"total_max_attempts": settings.attempts, "mode": "standard"},
        max_pool_connections=16,
        request_checksum_calculation=mode,
        response_checksum_validation=mode,
    )
    client = boto3.client(
        "s3",
        endpoint_url=settings.endpoint,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key,
        region_name=settings.region,
        config=config,
    )
    # `Expect: 100-continue` costs a round trip for each put, and botocore loops forever if the connection is closed in
    # the middle of that response.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    clock.attach(client)
    return client


def _translated(error: "ClientError", where: str, clock: ServerClock) -> StorageError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    message = f"{where}: {code} (HTTP {status}): {error.response.get('Error', {}).get('Message', '')}"
    if code in _LOST_RACE_CODES or status == _PRECONDITION_FAILED:  # the body with the code may be missing
        return ObjectExistsError(message)
    if code in {"NoSuchKey", "404"}:
        return ObjectNotFoundError(message)
    if status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS or code in _TRANSIENT_CODES:
        return StoreUnavailableError(message)
    # Detected by the time alone, since the response to a HEAD has no body with a code.
    if status == _FORBIDDEN and clock.correct(metadata.get("HTTPHeaders", {})):
        return StoreUnavailableError(f"{message} (this machine's clock is wrong; using the server's time from now on)")
    if status in {_UNAUTHORIZED, _FORBIDDEN} or code in _NO_ACCESS_CODES:
        return StoreAccessError(message)
    return StoreRefusedError(message)


def _is_transient(error: "BotoCoreError") -> bool:
    """Whether the connection failed, or bytes were damaged in transit."""
    from botocore import exceptions  # noqa: PLC0415 - slow, only needed here

    return isinstance(
        error,
        exceptions.HTTPClientError
        | exceptions.ConnectionError
        | exceptions.IncompleteReadError
        | exceptions.FlexibleChecksumError,
    )
