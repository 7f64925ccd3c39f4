"""One request to the gateway, whatever its body, with the answer as it comes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from core.kernel import clock
from core.kernel.errors import Unavailable, UpstreamFailed
from core.playground.schemas import Endpoint

_TIMEOUT = httpx.Timeout(connect=5, write=30, pool=5, read=300)
# A key that was just made reaches the gateway with the next route table, within a second.
_KEY_PATIENCE_S = 5.0
_KEY_RETRY_S = 0.25
_MOST_CHARACTERS = 200_000
_MOST_BYTES = 5_000_000
_TEXT_TYPES = ("text/", "application/json", "application/problem+json")

# The name of a file, and what is in it.
Upload = tuple[str, bytes]


Piece = TypeVar("Piece", str, bytes)


class RawAnswer:
    """An answer: read `chunks()` or, where it is no text, `content()`, then the rest.

    Durations are in ms, from the request's start.

    Attributes:
        status: The HTTP status.
        headers: As they came, names in lower case.
        first_ms: Until the first piece of the body; None before.
        duration_ms: Until the last piece so far.
        is_cut: Whether the answer was longer than what is shown.
    """

    def __init__(self, response: httpx.Response, started_s: float) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.first_ms: float | None = None
        self.duration_ms = 0.0
        self.is_cut = False
        self._response, self._started_s = response, started_s

    @property
    def is_text(self) -> bool:
        """Whether the body can be read."""
        return self.headers.get("content-type", "text/").startswith(_TEXT_TYPES)

    def chunks(self) -> Generator[str, None, None]:
        """The body, piece by piece.

        Raises:
            UpstreamFailed: The connection broke off.
        """
        yield from self._pieces(self._response.iter_text(), _MOST_CHARACTERS)

    def content(self) -> bytes:
        """The body that is no text, whole. Raises UpstreamFailed: the connection broke off."""
        return b"".join(self._pieces(self._response.iter_bytes(), _MOST_BYTES))

    def _pieces(self, pieces: Iterator[Piece], most: int) -> Generator[Piece, None, None]:
        seen = 0
        try:
            for piece in pieces:
                self.duration_ms = (clock.monotonic_s() - self._started_s) * 1000
                self.first_ms = self.first_ms or self.duration_ms
                yield piece[: most - seen]
                seen += len(piece)
                if seen > most:
                    self.is_cut = True
                    return
        except httpx.HTTPError as error:
            raise UpstreamFailed(
                f"The answer broke off: {type(error).__name__}.",
                remedy="Send it again; the gateway's log names the request.",
            ) from error


def _content(body: Mapping[str, Any], file: Upload | None) -> dict[str, Any]:
    return {"json": body} if file is None else {"data": body, "files": {"file": file}}


@contextmanager
def send(
    endpoint: Endpoint, path: str, body: Mapping[str, Any], file: Upload | None = None
) -> Generator[RawAnswer, None, None]:
    """Send a request; leaving the block ends it, also upstream.

    Args:
        endpoint: The gateway and the key.
        path: Such as `/v1/embeddings`.
        body: Sent as JSON; with a file, as the other fields of a form.
        file: Sent as the form's field `file`.

    Raises:
        Unavailable: The gateway cannot be reached.
    """
    with httpx.Client(timeout=_TIMEOUT, trust_env=False) as client:
        response, started_s = _sent(client, endpoint, path, body, file)
        try:
            yield RawAnswer(response, started_s)
        finally:
            response.close()


def _sent(
    client: httpx.Client,
    endpoint: Endpoint,
    path: str,
    body: Mapping[str, Any],
    file: Upload | None,
) -> tuple[httpx.Response, float]:
    give_up_s = clock.monotonic_s() + _KEY_PATIENCE_S
    while True:
        request = client.build_request(
            "POST",
            f"{endpoint.base_url}{path}",
            **_content(body, file),
            headers={"Authorization": f"Bearer {endpoint.key.reveal()}"},
        )
        started_s = clock.monotonic_s()
        try:
            response = client.send(request, stream=True)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"The gateway does not answer at {endpoint.base_url}: {type(error).__name__}.",
                remedy="Start it with `bud up`; look at it with `bud doctor`.",
            ) from error
        is_new_key = response.status_code == httpx.codes.UNAUTHORIZED
        if not is_new_key or clock.monotonic_s() > give_up_s:
            return response, started_s
        response.close()
        time.sleep(_KEY_RETRY_S)
