"""HTTP to addresses that a person gave: https only, and never into the private network.

Every address that a name stands for must be public, at each redirect anew, and the connection is
made to the very address that was checked, so that a name cannot change its meaning in between.
Hosts in `BUD_PRIVATE_HOSTS` are exempt, also from https. Proxies of the environment are not used.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from core.kernel.errors import UpstreamFailed
from core.kernel.outside import check, shown

if TYPE_CHECKING:
    import httpx

# httpx writes whole URLs to the log at INFO, with the signature that one may hold.
logging.getLogger("httpx").setLevel(logging.WARNING)

TIMEOUT_S = 15.0
_MAX_REDIRECTS = 5

__all__ = ["TIMEOUT_S", "check", "shown", "stream"]


@contextmanager
def stream(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    data: Mapping[str, str] | None = None,
    redirects: bool = True,
) -> Iterator[httpx.Response]:
    """One request; the answer's body is still to be read.

    Args:
        method: GET, POST …
        url: Where; checked, and every redirect too.
        headers: Sent to every host on the way: give `redirects=False` where they are secret.
        data: A form to send.
        redirects: Whether to follow up to 5 of them.

    Raises:
        InvalidInput: An address that is refused.
        UpstreamFailed: Too many redirects, or one where none is followed.
        httpx.TransportError: The connection broke.
    """
    import httpx

    sent = {"Accept-Encoding": "identity", **(headers or {})}
    # Certificates that the environment names hold; its proxies would resolve names themselves.
    trusted = httpx.create_ssl_context(trust_env=True)
    with httpx.Client(timeout=TIMEOUT_S, verify=trusted, trust_env=False) as client:
        for _ in range(_MAX_REDIRECTS + 1):
            target = httpx.URL(url)
            pinned = target.copy_with(host=check(url))
            with client.stream(
                method,
                pinned,
                headers={**sent, "Host": target.netloc.decode()},
                data=data,
                extensions={"sni_hostname": target.host},
            ) as answer:
                if not answer.is_redirect:
                    yield answer
                    return
                if not redirects:
                    break
                url = urljoin(url, answer.headers["Location"])
    raise UpstreamFailed(
        f"{shown(url)} redirects, and that is not followed here."
        if not redirects
        else f"{shown(url)} redirects more than {_MAX_REDIRECTS} times.",
        remedy="Give the address that it leads to.",
    )
