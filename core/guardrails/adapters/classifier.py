"""A classifier as somebody tries it; the gateway asks it by a client of its own."""

from __future__ import annotations

from collections import Counter
from urllib.parse import urlsplit

from core.contracts.guardrails import Classifier
from core.detection import verdicts
from core.kernel import outside
from core.kernel.errors import InvalidInput, Unavailable, UpstreamFailed


def check_url(url: str) -> str:
    """The URL, once it may be asked.

    Raises:
        InvalidInput: It is none, not https, or leads into a private network: BUD_PRIVATE_HOSTS.
        Unavailable: Its name cannot be resolved.
    """
    url = url.strip()
    outside.check(url)
    if urlsplit(url).fragment or any(letter.isspace() for letter in url) or not url.isascii():
        raise InvalidInput("This is no address for a classifier.", value=outside.shown(url))
    return url


def origin(url: str) -> tuple[str, str]:
    """Scheme and host: whoever holds its key."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def ask(
    check: Classifier, credential: str, text: str, within_s: float
) -> tuple[bool, Counter[str]]:
    """Whether it flags a text, and by which categories; no redirect is followed.

    Raises:
        UpstreamFailed: It answers something else.
        Unavailable: It does not answer in time.
        InvalidInput: Its address is not allowed any more.
    """
    import httpx

    target = httpx.URL(check.url)
    pinned = target.copy_with(host=outside.check(check.url))
    headers = {"Content-Type": "application/json", "Host": target.netloc.decode()}
    if credential:
        headers["Authorization"] = f"Bearer {credential}"
    trusted = httpx.create_ssl_context(trust_env=True)
    try:
        with httpx.Client(timeout=within_s, verify=trusted, trust_env=False) as client:
            answer = client.post(
                pinned,
                content=verdicts.question(check, [text]),
                headers=headers,
                extensions={"sni_hostname": target.host},
            )
    except httpx.TimeoutException as error:
        raise Unavailable(
            f"The classifier did not answer within {within_s:g} s.", remedy="Give it more time."
        ) from error
    except httpx.TransportError as error:
        raise Unavailable(
            "The classifier cannot be reached.", remedy="Check its address, and that it runs."
        ) from error
    if answer.status_code != 200:
        raise UpstreamFailed(f"The classifier answers with status {answer.status_code}.")
    try:
        return verdicts.verdict(check, answer.content, 1)
    except ValueError as error:
        raise UpstreamFailed(f"Of the classifier, {error}.") from error
