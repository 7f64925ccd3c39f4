"""What every feed is, and how its files are fetched: with a limit, and able to be cancelled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from core.kernel.errors import NotFound, RateLimited, TooLarge, Unavailable, UpstreamFailed
from core.registry.catalogue_files import Entry

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 20.0
_MOST_BYTES = 100_000_000
# The hub allows 500 requests in five minutes without a token.
_WAIT_S = 60.0
_MOST_WAITS = 10


class Watch(Protocol):
    """Who is told how far it is, and may stop it: `core.jobs.Progress`."""

    def update(self, fraction: float | None, detail: str = "") -> None:
        """Say how far it is; raises when the job was cancelled."""

    def sleep(self, seconds: float) -> None:
        """Wait; raises when the job was cancelled."""


@dataclass(frozen=True)
class Feed:
    """A public source of the catalogue.

    Attributes:
        name: As people call it.
        what: What is read from it.
        setting: The setting that names its address.
        mark: Of the shipped rows that its prices take the place of; empty if it has no prices.
        entries: Reads it, given the ids of repositories that the catalogue knows on the hub and
            the day, `2026-11-29`.
    """

    name: str
    what: str
    setting: str
    mark: str
    entries: Callable[[Watch, Sequence[str], str], Iterable[Entry]]


def fetch(url: str, setting: str, watch: Watch, headers: dict[str, str] | None = None) -> Any:
    """The JSON at an address.

    Raises:
        Unavailable: The host cannot be reached.
        NotFound: There is nothing at this address, or it is private.
        RateLimited: It refuses more requests, also after ten minutes.
        UpstreamFailed: It answers with an error, or with no JSON.
        TooLarge: The answer is over 100 MB.
    """
    return _json(_get(url, setting, watch, headers or {}))


def pages(url: str, setting: str, watch: Watch, headers: dict[str, str]) -> Iterator[Any]:
    """The elements of a list that comes in pages, each with a `Link` to the next.

    Not by `huggingface_hub.list_models`: its retries take 23 s on a machine without a network, and
    cannot be cancelled.
    """
    following: str | None = url
    while following is not None:
        answer = _get(following, setting, watch, headers)
        yield from _json(answer)
        following = answer.links.get("next", {}).get("url")


def _get(url: str, setting: str, watch: Watch, headers: dict[str, str]) -> httpx.Response:
    import httpx

    host = httpx.URL(url).host
    for _ in range(_MOST_WAITS + 1):
        try:
            answer = httpx.get(url, timeout=_TIMEOUT_S, follow_redirects=True, headers=headers)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"{host} cannot be reached: {error}.",
                remedy=f"Check the network of this machine, or name another address in {setting}; "
                "the catalogue stays as it is.",
            ) from error
        if answer.status_code != 429:
            return _good(answer, host, setting)
        watch.update(None, f"{host} asks to wait")
        watch.sleep(_wait_s(answer))
    raise RateLimited(
        f"{host} answers no more for now: too many requests from this address.",
        retry_after_s=_WAIT_S,
        remedy="Try again later; at Hugging Face BUD_HUGGINGFACE_TOKEN allows more.",
    )


def _wait_s(answer: httpx.Response) -> float:
    asked = answer.headers.get("Retry-After", "")
    return min(float(asked), _WAIT_S) if asked.isdigit() else _WAIT_S


def _good(answer: httpx.Response, host: str, setting: str) -> httpx.Response:
    if answer.status_code in (401, 403, 404):
        raise NotFound(f"{host} has nothing here.", value=str(answer.url))
    if answer.status_code != 200:
        raise UpstreamFailed(
            f"{host} answered {answer.status_code}.",
            remedy=f"Try again later, or name another address in {setting}.",
        )
    if len(answer.content) > _MOST_BYTES:
        raise TooLarge(f"The answer of {host} is over {_MOST_BYTES / 1e6:.0f} MB.")
    return answer


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise format_changed(answer.url.host, "JSON") from error


def format_changed(source: str, what: str) -> UpstreamFailed:
    """The error of an answer that is not what it was."""
    return UpstreamFailed(
        f"What {source} answers has no {what}: its format has changed.",
        remedy="Update Bud; until then the catalogue stays as it is.",
    )
