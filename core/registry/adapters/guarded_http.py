"""HTTP to addresses that a person gave: https only, and never into the private network.

Every address that a name stands for must be public, at each redirect anew, and the connection is
made to the very address that was checked, so that a name cannot change its meaning in between.
Hosts in `BUD_PRIVATE_HOSTS` are exempt, also from https. Proxies of the environment are not used.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from core.kernel.errors import InvalidInput, Unavailable, UpstreamFailed
from core.kernel.settings import settings

if TYPE_CHECKING:
    import httpx

# httpx writes whole URLs to the log at INFO, with the signature that one may hold.
logging.getLogger("httpx").setLevel(logging.WARNING)

TIMEOUT_S = 15.0
_MAX_REDIRECTS = 5
# Public addresses that carry a private one: IPv4 through NAT64.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def check(url: str) -> str:
    """The address to connect to for `url`.

    Raises:
        InvalidInput: It is no https URL, holds a password, or leads into a private network.
        Unavailable: Its name cannot be resolved.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise InvalidInput("This is not a URL.", value=shown(url)) from error
    host = (parts.hostname or "").lower()
    if not host or parts.scheme not in ("http", "https"):
        raise InvalidInput("This is not an https:// URL.", value=shown(url), remedy="Check it.")
    if parts.username or parts.password:
        raise InvalidInput(
            "The URL holds a user name or password.",
            value=shown(url),
            remedy="Leave it out: URLs stand in logs and lists.",
        )
    exempt = host in _private_hosts()
    if parts.scheme != "https" and not exempt:
        raise InvalidInput(
            f"{shown(url)} is not https.", remedy="Use https://, so that nobody can change it."
        )
    found = _resolved(host, port)
    inside = [address for address in found if not _is_public(address)]
    if inside and not exempt:
        raise InvalidInput(
            f"{host} is in a private network ({inside[0]}).",
            remedy=f"If Bud may reach it, an operator adds {host} to BUD_PRIVATE_HOSTS.",
        )
    return found[0]


def shown(url: str) -> str:
    """A URL as messages may show it: without user name, password, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]


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


def _private_hosts() -> set[str]:
    return {host.strip().lower() for host in settings().private_hosts.split(",")} - {""}


def _resolved(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(
            f"The name {host} cannot be resolved.",
            remedy="Check the address, and the network of this machine.",
        ) from error
    return list(dict.fromkeys(str(address[4][0]) for address in found))


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            ip = ip.ipv4_mapped
        elif ip in _NAT64:
            ip = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast
