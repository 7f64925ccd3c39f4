"""Public files of a GitHub repository, at its newest commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from core.kernel.errors import NotFound, RateLimited, TooLarge, Unavailable, UpstreamFailed

if TYPE_CHECKING:
    import httpx

API_URL = "https://api.github.com"
RAW_URL = "https://raw.githubusercontent.com"
_TIMEOUT_S = 20.0
_MOST_BYTES = 20_000_000
_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True)
class Commit:
    """A commit and its day, `2026-05-22`."""

    sha: str
    day: str


class Repository:
    """One repository at one commit.

    Args:
        name: `owner/name`.
        branch: The branch whose newest commit is read.
    """

    def __init__(self, name: str, branch: str) -> None:
        self.name = name
        body = _get(f"{API_URL}/repos/{name}/commits/{quote(branch)}").json()
        try:
            self.commit = Commit(body["sha"], body["commit"]["committer"]["date"][:10])
        except (KeyError, TypeError) as error:
            raise UpstreamFailed(
                f"GitHub's answer about {name} is not the one that Bud knows.",
                remedy="Try again later; if it stays so, update Bud.",
            ) from error

    @property
    def source(self) -> str:
        """How its rows name it: `owner/name@commit (day)`."""
        return f"{self.name}@{self.commit.sha[:12]} ({self.commit.day})"

    def text(self, path: str) -> str:
        """A file's text.

        Raises:
            NotFound: There is no such file any more.
            Unavailable: GitHub cannot be reached.
        """
        response = _get(f"{RAW_URL}/{self.name}/{self.commit.sha}/{quote(path)}")
        return response.content.decode("utf-8-sig", errors="replace")


def _get(url: str) -> httpx.Response:
    import httpx

    try:
        response = httpx.get(url, timeout=_TIMEOUT_S, follow_redirects=True)
    except httpx.HTTPError as error:
        raise Unavailable(
            f"{httpx.URL(url).host} cannot be reached: {error}.",
            remedy="Check the network of this machine; the board stays as it is.",
        ) from error
    if response.status_code == 404:
        raise NotFound("The board's file is no longer where it was.", value=url)
    if response.status_code in (403, 429):
        raise RateLimited(
            "GitHub answers no more for now: too many requests from this address.",
            retry_after_s=_RETRY_AFTER_S,
            remedy="Try again in an hour.",
        )
    if response.status_code != 200:
        raise UpstreamFailed(f"GitHub answered {response.status_code}.", value=url)
    if len(response.content) > _MOST_BYTES:
        raise TooLarge("The board's file is over 20 MB.", value=url)
    return response
