"""Ranges of IP addresses, as people write them."""

from __future__ import annotations

import ipaddress


def normalised(network: str) -> str:
    """An address or a CIDR range in its one form, such as `10.0.0.0/8` or `2001:db8::/32`.

    Raises ValueError: it is none, or it has bits set behind its prefix.
    """
    try:
        return str(ipaddress.ip_network(network.strip()))
    except ValueError as error:
        raise ValueError(
            f"{network!r} is no IP address or CIDR range such as 10.0.0.0/8: {error}"
        ) from None
