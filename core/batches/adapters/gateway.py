"""Asks the gateway one line of a batch, in the name of the key that made the batch."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec

from core.kernel import clock
from core.kernel.crypto import Secret
from core.kernel.errors import Unavailable

_TIMEOUT = httpx.Timeout(connect=5, write=60, pool=None, read=900)
_MOST_TRIES = 5
_FIRST_WAIT_S, _MOST_WAIT_S = 0.5, 60.0
# What another try may change; a 429 for a budget or a provider's credit is not among it.
_TRANSIENT = frozenset({429, 502, 503, 504})


class _Error(msgspec.Struct):
    code: str | None = None


class _Refusal(msgspec.Struct):
    error: _Error | None = None


@dataclass(frozen=True)
class Answered:
    """What the gateway answered."""

    status: int
    body: bytes
    request_id: str


class Gateway:
    """The gateway, for one batch.

    Args:
        base_url: Without `/v1`.
        secret: What opens it.
    """

    def __init__(self, base_url: str, secret: Secret) -> None:
        self._client = httpx.AsyncClient(
            base_url=base_url,
            timeout=_TIMEOUT,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
            headers={
                "Authorization": f"Bearer {secret.reveal()}",
                "Content-Type": "application/json",
                "User-Agent": "bud-batch",
            },
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def ask(self, path: str, body: bytes, request_id: str, until_unix_s: float) -> Answered:
        """Ask until there is an answer that another try would not change.

        A limit that lets requests in again within a minute is waited for, and so is a gateway that
        cannot be reached; what breaks off or a model's servers do wrong is tried five times.

        Args:
            path: The endpoint.
            body: What the line says.
            request_id: Of its fact.
            until_unix_s: When the batch expires; the last answer holds then.

        Raises:
            Unavailable: No answer came until then, or each try broke off.
        """
        tries = 0
        while True:
            try:
                response = await self._client.post(
                    path, content=body, headers={"X-Request-Id": request_id}
                )
            except httpx.TransportError as error:
                # Where nothing listens, nothing was asked.
                tries += not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                wait_s = float(_FIRST_WAIT_S * 2.0**tries)
                if tries >= _MOST_TRIES or clock.unix_s() + wait_s > until_unix_s:
                    when = f"in {tries} tries" if tries else "before the batch expired"
                    raise Unavailable(
                        f"No answer came {when}: {type(error).__name__}.",
                        remedy="See that the gateway runs, and make a new batch of what is left.",
                    ) from error
            else:
                limited = _is_limit(response)
                tries += not limited
                wait_s = _wait_s(response, tries)
                over = wait_s > _MOST_WAIT_S or clock.unix_s() + wait_s > until_unix_s
                if not _may_change(response) or tries >= _MOST_TRIES or over:
                    return Answered(
                        response.status_code,
                        response.content,
                        response.headers.get("x-request-id", request_id),
                    )
            await asyncio.sleep(wait_s * random.uniform(1.0, 1.2))  # noqa: S311 (no cryptography)


def _code(response: httpx.Response) -> Any:
    try:
        refusal = msgspec.json.decode(response.content, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return refusal.error.code if refusal.error else None


def _is_limit(response: httpx.Response) -> bool:
    return response.status_code == 429 and _code(response) == "rate_limit_exceeded"


def _may_change(response: httpx.Response) -> bool:
    if _is_limit(response) and "retry-after" not in response.headers:
        return False  # a limit of 0, or a line that is larger than the whole limit
    return response.status_code in _TRANSIENT and _code(response) != "insufficient_quota"


def _wait_s(response: httpx.Response, tries: int) -> float:
    after = response.headers.get("retry-after", "")
    if after.isdigit():
        return max(float(after), _FIRST_WAIT_S)
    return float(min(_FIRST_WAIT_S * 2.0**tries, _MOST_WAIT_S))
