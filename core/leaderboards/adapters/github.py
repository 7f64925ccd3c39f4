"""Public files of a GitHub repository, at its newest commit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from core.kernel.errors import NotFound, RateLimited, TooLarge, Unavailable, UpstreamFailed
from core.kernel.settings import settings

if TYPE_CHECKING:
    import httpx

_TIMEOUT_S = 20.0
_MOST_BYTES = 20_000_000
# MTEB's own reader takes up to 500 MB; its file was under 100 MB in 2026.
_MOST_DATA_BYTES = 500_000_000
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
        body = self._api(f"commits/{quote(branch)}")
        try:
            self.commit = Commit(body["sha"], body["commit"]["committer"]["date"][:10])
        except (KeyError, TypeError) as error:
            raise self._unknown_answer() from error

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
        content = _get(self._raw(path), _MOST_BYTES).content
        return content.decode("utf-8-sig", errors="replace")

    def data(self, path: str) -> bytes:
        """A file as it is, of up to 500 MB. Raises what `text` does."""
        return _get(self._raw(path), _MOST_DATA_BYTES).content

    def paths(self, folder: str) -> list[str]:
        """Every file below a folder, in order.

        Raises:
            UpstreamFailed: The repository has more files than GitHub lists at once.
        """
        body = self._api(f"git/trees/{self.commit.sha}?recursive=1")
        try:
            found = [each["path"] for each in body["tree"] if each["type"] == "blob"]
            is_whole = not body["truncated"]
        except (KeyError, TypeError) as error:
            raise self._unknown_answer() from error
        if not is_whole:
            raise UpstreamFailed(f"{self.name} has more files than GitHub lists at once.")
        return sorted(path for path in found if path.startswith(f"{folder}/"))

    def _api(self, rest: str) -> Any:
        return _get(f"{settings().github_api_url}/repos/{self.name}/{rest}", _MOST_BYTES).json()

    def _raw(self, path: str) -> str:
        return f"{settings().github_raw_url}/{self.name}/{self.commit.sha}/{quote(path)}"

    def _unknown_answer(self) -> UpstreamFailed:
        return UpstreamFailed(
            f"GitHub's answer about {self.name} is not the one that Bud knows.",
            remedy="Try again later; if it stays so, update Bud.",
        )


def _get(url: str, most_bytes: int) -> httpx.Response:
    import httpx

    try:
        response = httpx.get(url, timeout=_TIMEOUT_S, follow_redirects=True)
    except httpx.HTTPError as error:
        raise Unavailable(
            f"{httpx.URL(url).host} cannot be reached: {error}.",
            remedy="Check the network of this machine, or name a mirror in BUD_GITHUB_API_URL and "
            "BUD_GITHUB_RAW_URL; the board stays as it is.",
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
    if len(response.content) > most_bytes:
        raise TooLarge(f"The board's file is over {most_bytes / 1e6:.0f} MB.", value=url)
    return response
