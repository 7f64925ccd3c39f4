"""S3 and what speaks like it (MinIO), through boto3."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from core.kernel.errors import (
    BudError,
    InvalidInput,
    NotFound,
    PermissionDenied,
    Unavailable,
    UpstreamFailed,
)
from core.kernel.settings import settings
from core.registry.adapters import multipart
from core.registry.adapters.download import ConnectionBroke, Written, transfer

_CHUNK_BYTES = 256 << 10
_TIMEOUT_S = 15
_ATTEMPTS = 3


@dataclass(frozen=True)
class Location:
    """A bucket and a prefix (or one key) in it."""

    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """As people write it."""
        return f"s3://{self.bucket}/{self.prefix}"

    def below(self, name: str) -> Location:
        """The location of `name` in this one."""
        return Location(self.bucket, f"{self.prefix.rstrip('/')}/{name}".lstrip("/"))


@dataclass(frozen=True)
class StoredObject:
    """One object; `name` is its key without the prefix."""

    key: str
    name: str
    size_bytes: int
    etag: str


def parse(uri: str) -> Location:
    """The location that `s3://bucket/prefix` names. InvalidInput when it is none."""
    bucket, _, prefix = uri.strip().removeprefix("s3://").partition("/")
    if not uri.strip().startswith("s3://") or not bucket or set(bucket) & set(" ?#@:"):
        raise InvalidInput(
            "This is no address in an object store.", value=uri[:200], remedy="Use s3://bucket/key."
        )
    return Location(bucket, prefix)


def list_objects(location: Location) -> list[StoredObject]:
    """The object at a key, or everything below a prefix, by name.

    Raises:
        NotFound: There is no such bucket, or nothing below the prefix.
        PermissionDenied, Unavailable, UpstreamFailed: What the store answers.
    """
    prefix = location.prefix
    with _translated(location):
        pages = _client().get_paginator("list_objects_v2")
        found = [
            StoredObject(
                each["Key"],
                _name_below(each["Key"], prefix),
                each["Size"],
                each["ETag"],
            )
            for page in pages.paginate(Bucket=location.bucket, Prefix=prefix)
            for each in page.get("Contents", [])
            if not each["Key"].endswith("/") and _is_below(each["Key"], prefix)
        ]
    if not found:
        raise NotFound(f"There is nothing at {location.uri}.", remedy="Check the bucket's content.")
    return sorted(found, key=lambda each: each.name)


def _is_below(key: str, prefix: str) -> bool:
    # S3 compares letters, people mean folders: `models/a` is not in `models/ab`.
    return not prefix or key == prefix or key.startswith(f"{prefix.rstrip('/')}/")


def _name_below(key: str, prefix: str) -> str:
    return key.rpartition("/")[2] if key == prefix else key.removeprefix(prefix).lstrip("/")


def download(
    location: Location,
    found: StoredObject,
    target: Path,
    on_bytes: Callable[[int], None],
    wait: Callable[[float], None],
) -> str:
    """Download an object to `target`, going on after what is there already.

    Args:
        location: Where it was found; only its bucket is used.
        found: The object, as it was listed.
        target: Where it goes; its folder exists.
        on_bytes: Called with the number of bytes of each chunk; negative when what was there
            already is of no use. May raise to stop.
        wait: Waits so many seconds before the next try; may raise to stop.

    Returns:
        The SHA-256 of the file, as hex.

    Raises:
        InvalidInput: The object changed since it was listed.
        NotFound, PermissionDenied, Unavailable, UpstreamFailed: What the store answers.
    """
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    where = Location(location.bucket, found.key)

    def attempt(written: Written) -> None:
        try:
            with _translated(where, but_for=(HTTPClientError, IncompleteReadError)):
                answer = _client().get_object(
                    Bucket=location.bucket,
                    Key=found.key,
                    Range=f"bytes={written.count}-",
                    IfMatch=found.etag,
                )
                for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                    written.add(chunk)
        except (HTTPClientError, IncompleteReadError) as error:
            raise ConnectionBroke(type(error).__name__) from error

    try:
        return transfer(attempt, target, found.size_bytes, on_bytes, wait)
    except ConnectionBroke as error:
        raise _broken(where) from error


def upload(source: Path, location: Location, sha256: str, on_bytes: Callable[[int], None]) -> None:
    """Put a file at a key, unless it is there already with this size and hash.

    An upload that was killed, broke or was stopped goes on after its last whole part; `remove`
    drops what it left instead.

    Args:
        source: The file.
        location: Its key.
        sha256: Its hash, which is noted with it.
        on_bytes: Called with the number of bytes that are done; may raise to stop.
    """
    size_bytes = source.stat().st_size
    with _translated(location):
        if _is_there(location, size_bytes, sha256):
            on_bytes(size_bytes)
            return
        bucket, key, metadata = location.bucket, location.prefix, {"sha256": sha256}
        multipart.upload(_client(), source, bucket, key, metadata, on_bytes)


def _is_there(location: Location, size_bytes: int, sha256: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        head = _client().head_object(Bucket=location.bucket, Key=location.prefix)
    except ClientError as error:
        if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
            return False
        raise
    return bool(head["ContentLength"] == size_bytes and head["Metadata"].get("sha256") == sha256)


def abort_uploads(location: Location) -> None:
    """Drop the parts of uploads below a location that were never ended."""
    with _translated(location):
        pages = _client().get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=location.bucket, Prefix=location.prefix):
            for each in page.get("Uploads", []):
                _client().abort_multipart_upload(
                    Bucket=location.bucket, Key=each["Key"], UploadId=each["UploadId"]
                )


def remove(location: Location) -> None:
    """Remove everything below a location, and the parts of uploads that were never ended."""
    with _translated(location):
        abort_uploads(location)
        try:
            found = list_objects(location)
        except NotFound:
            return
        for each in found:
            _client().delete_object(Bucket=location.bucket, Key=each.key)


def _client() -> Any:
    chosen = settings()
    secret = chosen.s3_secret_access_key
    return _made_client(
        chosen.s3_endpoint,
        chosen.s3_region,
        chosen.s3_access_key_id,
        secret.get_secret_value() if secret is not None else "",
    )


@cache
def _made_client(endpoint: str, region: str, key_id: str, secret: str) -> Any:
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=region or ("us-east-1" if endpoint else None),
        aws_access_key_id=key_id or None,
        aws_secret_access_key=secret or None,
        config=Config(
            connect_timeout=_TIMEOUT_S,
            read_timeout=_TIMEOUT_S,
            retries={"total_max_attempts": _ATTEMPTS, "mode": "standard"},
            # MinIO and others know buckets by path, and not every checksum that AWS does.
            s3={"addressing_style": "path"} if endpoint else None,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def _translated(location: Location, *, but_for: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except but_for:
        raise
    except ClientError as error:
        raise _answered(error.response, location) from error
    except BotoCoreError as error:
        if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
            raise PermissionDenied(
                f"There is no key for the object store of {location.uri}.",
                remedy="Set BUD_S3_ACCESS_KEY_ID and BUD_S3_SECRET_ACCESS_KEY.",
            ) from error
        raise _broken(location) from error


def _answered(response: Any, location: Location) -> BudError:
    code = str(response.get("Error", {}).get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if code == "NoSuchBucket":
        return NotFound(
            f"There is no bucket {location.bucket!r} in the object store.",
            remedy="Check its name; for MinIO or another store set BUD_S3_ENDPOINT.",
        )
    if status == 404:
        return NotFound(
            f"There is nothing at {location.uri}.", remedy="Check the bucket's content."
        )
    if status == 412:
        return InvalidInput(
            f"{location.uri} was changed while it was downloaded.", remedy="Add it again."
        )
    if status in (401, 403):
        return PermissionDenied(
            f"The object store refuses access to {location.uri} ({code}).",
            remedy="Check BUD_S3_ACCESS_KEY_ID, its secret, and what the key may do.",
        )
    return UpstreamFailed(
        f"The object store answered {code or status} for {location.uri}.",
        remedy="Retry the job in a few minutes; it goes on where it was.",
    )


def _broken(location: Location) -> BudError:
    where = settings().s3_endpoint or "AWS"
    return Unavailable(
        f"The object store at {where} cannot be reached for {location.uri}.",
        remedy="Check BUD_S3_ENDPOINT and the network, then retry the job; "
        "it goes on where it was.",
    )
