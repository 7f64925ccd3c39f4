"""Uploads to S3 in parts, which go on after the parts that a killed upload left."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

_MIB = 1 << 20
_LEAST_PART_BYTES = 16 * _MIB
# What S3 takes of one upload.
_MOST_PARTS = 10_000


def upload(
    client: Any,
    source: Path,
    bucket: str,
    key: str,
    metadata: dict[str, str],
    on_bytes: Callable[[int], None],
) -> None:
    """Put a file at a key; what an upload of it that never ended has sent already stays.

    A part that is there counts when its ETag is the MD5 of the file's own bytes; a store that
    gives other ETags, such as one that encrypts with keys of its own, is sent every part again.

    Args:
        client: boto3's, for S3.
        source: The file; one that fits in a part is put in one piece.
        bucket: Where it goes.
        key: Where it goes.
        metadata: What is noted with it.
        on_bytes: Called with the number of bytes of each part that is done; may raise to stop. The
            parts stay then, until the upload is tried again or aborted.
    """
    size_bytes = source.stat().st_size
    if size_bytes <= _LEAST_PART_BYTES:
        client.put_object(Bucket=bucket, Key=key, Body=source.read_bytes(), Metadata=metadata)
        on_bytes(size_bytes)
        return
    where = {"Bucket": bucket, "Key": key, "UploadId": ""}
    where["UploadId"] = _left(client, bucket, key) or _begun(client, bucket, key, metadata)
    there = _etags(client, where)
    sent = []
    with source.open("rb") as file:
        for number, part in enumerate(_parts(file, _part_bytes(size_bytes)), start=1):
            etag = there.get(number, "")
            if etag.strip('"') != hashlib.md5(part, usedforsecurity=False).hexdigest():
                etag = client.upload_part(**where, PartNumber=number, Body=part)["ETag"]
            sent.append({"PartNumber": number, "ETag": etag})
            on_bytes(len(part))
    client.complete_multipart_upload(**where, MultipartUpload={"Parts": sent})


def _part_bytes(size_bytes: int) -> int:
    """Alike whenever the file is, so that an upload can go on with the parts that are there."""
    needed = -(-size_bytes // _MOST_PARTS)
    return max(_LEAST_PART_BYTES, -(-needed // _MIB) * _MIB)


def _parts(file: BinaryIO, part_bytes: int) -> Iterator[bytes]:
    while part := file.read(part_bytes):
        yield part


def _left(client: Any, bucket: str, key: str) -> str:
    """The upload of this key that was begun last and never ended; empty when there is none."""
    pages = client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
    found = [each for page in pages for each in page.get("Uploads", []) if each["Key"] == key]
    newest = max(found, key=lambda each: each["Initiated"], default={"UploadId": ""})
    return str(newest["UploadId"])


def _begun(client: Any, bucket: str, key: str, metadata: dict[str, str]) -> str:
    begun = client.create_multipart_upload(Bucket=bucket, Key=key, Metadata=metadata)
    return str(begun["UploadId"])


def _etags(client: Any, where: dict[str, str]) -> dict[int, str]:
    """The ETag of each part that the store has, by the part's number."""
    pages = client.get_paginator("list_parts").paginate(**where)
    return {part["PartNumber"]: part["ETag"] for page in pages for part in page.get("Parts", [])}
