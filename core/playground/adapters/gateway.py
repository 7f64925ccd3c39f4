"""A streaming client of the gateway's OpenAI API.

Asynchronous, so that a stop takes effect at once, also while the model still reads the prompt:
cancelling the task closes the connection, which cancels the request upstream.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx

from core.kernel import clock
from core.kernel.errors import BudError, InvalidInput, NotFound, Unavailable, UpstreamFailed
from core.playground.schemas import TOO_LONG, ChatRequest, Endpoint

_TIMEOUT = httpx.Timeout(connect=5, write=30, pool=5, read=300)
# A key that was just made reaches the gateway with the next route table, within a second.
_KEY_PATIENCE_S = 5.0
_KEY_RETRY_S = 0.25


@dataclass(frozen=True)
class Delta:
    """A piece of the answer; `reasoning` is what a thinking model says to itself."""

    content: str = ""
    reasoning: str = ""


@dataclass(frozen=True)
class Finished:
    """The end of an answer: durations in ms, rate in tokens/s, counts from the server's usage."""

    request_id: str
    finish_reason: str
    ttft_ms: float | None
    duration_ms: float
    tokens_per_s: float | None
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None


class _Stream:
    """Collects what the events of one stream say."""

    def __init__(self) -> None:
        self.started_s = clock.monotonic_s()
        self.first_s: float | None = None
        self.last_s: float | None = None
        self.request_id = ""
        self.finish_reason = ""
        self.usage: dict[str, Any] = {}
        self.pieces = 0

    def take(self, event: dict[str, Any]) -> Delta | None:
        """Learn from one event; the piece of text in it, if any."""
        if "error" in event:
            raise _error_of(event, 502)
        self.request_id = self.request_id or str(event.get("id") or "")
        self.usage = event.get("usage") or self.usage
        choice = (event.get("choices") or [{}])[0]
        self.finish_reason = choice.get("finish_reason") or self.finish_reason
        said = choice.get("delta") or {}
        delta = Delta(said.get("content") or "", said.get("reasoning_content") or "")
        if not (delta.content or delta.reasoning):
            return None
        self.last_s = clock.monotonic_s()
        self.first_s = self.first_s or self.last_s
        self.pieces += 1
        return delta

    def finished(self) -> Finished:
        """The numbers at the end."""
        output_tokens = self.usage.get("completion_tokens")
        details = self.usage.get("prompt_tokens_details") or {}
        return Finished(
            request_id=self.request_id,
            finish_reason=self.finish_reason,
            ttft_ms=(self.first_s - self.started_s) * 1000 if self.first_s else None,
            duration_ms=(clock.monotonic_s() - self.started_s) * 1000,
            tokens_per_s=self._tokens_per_s(output_tokens),
            input_tokens=self.usage.get("prompt_tokens"),
            output_tokens=output_tokens,
            cached_tokens=details.get("cached_tokens"),
        )

    def _tokens_per_s(self, output_tokens: int | None) -> float | None:
        # The first token's time is TTFT; the rate is of those after it. A stopped stream has no
        # usage, and llama.cpp sends a token an event: the events are counted instead.
        counted = output_tokens or self.pieces
        if self.first_s is None or self.last_s is None or counted < 2:
            return None
        spent_s = self.last_s - self.first_s
        return (counted - 1) / spent_s if spent_s > 0 else None


class ChatStream:
    """One streamed answer: iterate over its pieces, then read `finished()`.

    `finished()` also holds when the iteration was broken off, with what was known by then.
    """

    def __init__(self, endpoint: Endpoint, request: ChatRequest) -> None:
        self._endpoint = endpoint
        self._request = request
        self._stream = _Stream()

    def finished(self) -> Finished:
        """The numbers up to now."""
        return self._stream.finished()

    async def pieces(self) -> AsyncGenerator[Delta, None]:
        """Ask, and give each piece as it comes.

        Raises:
            BudError: The gateway is out of reach, refuses, or breaks off; with its own words.
        """
        url = f"{self._endpoint.base_url}/v1/chat/completions"
        try:
            async with httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False) as client:
                response = await self._send(client, url)
                try:
                    async for delta in self._read(response):
                        yield delta
                finally:
                    await response.aclose()
        except httpx.ConnectError as error:
            raise Unavailable(
                f"The gateway does not answer at {self._endpoint.base_url}.",
                remedy="It starts again by itself within seconds; then send the message again.",
            ) from error
        except httpx.TimeoutException as error:
            raise Unavailable(
                "The model sent nothing for too long.",
                remedy="Look at the deployment's log, or ask for fewer tokens.",
            ) from error
        except httpx.HTTPError as error:
            raise UpstreamFailed(
                "The answer broke off: the connection to the gateway was lost.",
                remedy="What came before is kept. Regenerate the answer.",
            ) from error

    async def _send(self, client: httpx.AsyncClient, url: str) -> httpx.Response:
        give_up_s = clock.monotonic_s() + _KEY_PATIENCE_S
        while True:
            self._stream.started_s = clock.monotonic_s()
            request = client.build_request(
                "POST",
                url,
                json=self._request.body(stream=True),
                headers={"Authorization": f"Bearer {self._endpoint.key.reveal()}"},
            )
            response = await client.send(request, stream=True)
            self._stream.request_id = response.headers.get("x-request-id", "")
            if response.status_code == httpx.codes.OK:
                return response
            content = await response.aread()
            await response.aclose()
            may_be_new = response.status_code == httpx.codes.UNAUTHORIZED
            if not may_be_new or clock.monotonic_s() > give_up_s:
                body = _json(content)
                if _code(body) == TOO_LONG:
                    self._stream.finish_reason = TOO_LONG
                raise _error_of(body, response.status_code)
            await asyncio.sleep(_KEY_RETRY_S)

    async def _read(self, response: httpx.Response) -> AsyncIterator[Delta]:
        ended = False
        async for line in response.aiter_lines():
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                ended = True
                continue
            delta = self._stream.take(_json(data.encode()))
            if delta is not None:
                yield delta
        if not ended and not self._stream.finish_reason:
            raise UpstreamFailed(
                "The answer broke off before its end.",
                remedy="What came before is kept. Regenerate the answer.",
            )


def _json(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except ValueError:
        text = content.decode("utf-8", "replace").strip()
        return {"error": {"message": text[:500] or "The gateway gave an empty answer."}}
    return found if isinstance(found, dict) else {"error": {"message": str(found)[:500]}}


_SHORTER = (
    "Begin a new chat, leave out the oldest messages, or send a shorter one. Who runs the "
    "deployment can give it a longer context, up to what its model was trained for."
)
_REMEDIES: dict[int, tuple[type[BudError], str]] = {
    400: (InvalidInput, "Change the parameters, or begin a new chat when it has become too long."),
    401: (Unavailable, "Reload the page: the Playground gets a new key."),
    404: (NotFound, "Choose another model: this deployment is gone or has another name."),
    413: (InvalidInput, "Send a shorter message."),
    429: (Unavailable, "Wait a moment, then regenerate the answer."),
    500: (
        UpstreamFailed,
        "Regenerate the answer. If it fails again, see: bud logs gateway",
    ),
    503: (Unavailable, "Look at the deployment: it is not ready. Then regenerate the answer."),
}


def _code(body: dict[str, Any]) -> object:
    error = body.get("error")
    return error.get("code") if isinstance(error, dict) else None


def _error_of(body: dict[str, Any], status: int) -> BudError:
    """The error that an OpenAI error body says, with a remedy."""
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    if _code(body) == TOO_LONG:
        return InvalidInput(f"The conversation is too long for this model. {said}", remedy=_SHORTER)
    kind, remedy = _REMEDIES.get(
        status, (UpstreamFailed, "What came before is kept. Regenerate the answer.")
    )
    return kind(str(said or f"The gateway answered with status {status}."), remedy=remedy)
