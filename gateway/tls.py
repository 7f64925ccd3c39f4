"""TLS to replicas and providers."""

from __future__ import annotations

import ssl
from functools import cache


@cache
def tls_context() -> ssl.SSLContext:
    """Trusts the system's authorities, or those that SSL_CERT_FILE names; reads many files."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
