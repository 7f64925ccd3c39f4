"""Which addresses Bud goes to when a person gives them: https only, and never a private network.

Every address that a name stands for must be public. Hosts in `BUD_PRIVATE_HOSTS` are exempt, also
from https. Whoever connects should do so to the very address that was checked, so that a name
cannot change its meaning in between.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from core.kernel.errors import InvalidInput, Unavailable
from core.kernel.settings import settings

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
    """A URL as messages may show it: without user name, password, query and fragment.

    "" where it cannot be told apart.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"[:300]


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
