"""AWS Signature Version 4 for one request with a body.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
(November 2026). The tests compare with botocore, which is not on the gateway's path.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key; `session_token` is "" for a lasting one."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def signed(
    keys: Keys,
    *,
    region: str,
    service: str,
    host: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    at_unix_s: float,
) -> dict[str, str]:
    """The headers with those of the signature.

    Args:
        keys: Whose signature it is.
        region: Such as `us-east-1`.
        service: Its signing name, such as `bedrock`.
        host: As the Host header has it.
        path: Of a POST without a query, percent-encoded as it is sent.
        headers: What else is sent; all of it is signed.
        body: What is sent.
        at_unix_s: The time; AWS refuses one more than five minutes off.
    """
    at = datetime.fromtimestamp(at_unix_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    sent = {**headers, "X-Amz-Date": at}
    if keys.session_token:
        sent["X-Amz-Security-Token"] = keys.session_token
    lowered = {"host": host} | {name.lower(): value.strip() for name, value in sent.items()}
    names = ";".join(sorted(lowered))
    canonical = "\n".join(
        [
            "POST",
            quote(path, safe="/-_.~"),  # encoded a second time, as for all services but S3
            "",
            *(f"{name}:{lowered[name]}" for name in sorted(lowered)),
            "",
            names,
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{at[:8]}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = b"AWS4" + keys.secret_access_key.encode()
    for part in (at[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, f"{_ALGORITHM}\n{at}\n{scope}\n{digest}".encode(), "sha256").hex()
    sent["Authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key_id}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    return sent
