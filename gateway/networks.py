"""Ranges of IP addresses: an address is looked up in one as fast as in thousands."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Networks:
    """A set of CIDR ranges. Raises ValueError: one of them is none."""

    def __init__(self, ranges: Iterable[str]) -> None:
        # By version and prefix length: one look-up for each length that occurs.
        self._prefixes: dict[int, dict[int, set[int]]] = {}
        for text in ranges:
            network = ipaddress.ip_network(text)
            host_bits = network.max_prefixlen - network.prefixlen
            lengths = self._prefixes.setdefault(network.version, {})
            lengths.setdefault(host_bits, set()).add(int(network.network_address) >> host_bits)

    def __contains__(self, address: Address | None) -> bool:
        if address is None:
            return False
        number = int(address)
        lengths = self._prefixes.get(address.version, {})
        return any(number >> host_bits in known for host_bits, known in lengths.items())


@lru_cache(maxsize=1024)
def networks(ranges: tuple[str, ...]) -> Networks:
    """The set of these ranges, made once. Raises ValueError."""
    return Networks(ranges)


@lru_cache(maxsize=4096)
def address(text: str) -> Address | None:
    """An address; None when the text is none. IPv4 within IPv6 counts as IPv4."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
