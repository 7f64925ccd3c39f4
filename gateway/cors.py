"""Which web pages may call the gateway from a browser (CORS, as the Fetch standard has it).

Off unless origins are configured. No cookie ever opens the gateway, so credentials are not allowed:
a page needs a key of its own. What holds is the same for every project: a browser asks before it
sends the key.
"""

from __future__ import annotations

from gateway.access_config import AccessConfig
from gateway.http_request import Request, Response

_ANY = "*"
_METHODS = "GET, POST, DELETE, OPTIONS"
# What the clients of OpenAI and Anthropic send, beyond what needs no permission.
_HEADERS = (
    *("authorization", "content-type", "x-api-key", "anthropic-version", "anthropic-beta"),
    *("anthropic-dangerous-direct-browser-access", "openai-organization", "openai-project"),
    *("x-request-id", "x-session-id", "traceparent", "tracestate", "user-agent"),
)
# Sent by OpenAI's and Anthropic's clients with names of many kinds.
_HEADER_PREFIXES = ("x-stainless-",)
_EXPOSED = "X-Request-Id, Request-Id, Retry-After, X-Bud-Fallback, X-Bud-Cache, Age"
_MAX_AGE_S = 600


class Cors:
    """What browsers are told.

    Args:
        config: With at least one origin.
    """

    def __init__(self, config: AccessConfig) -> None:
        self._origins = frozenset(config.cors_origins)
        self._headers = frozenset(_HEADERS) | {name.lower() for name in config.cors_headers}

    def preflight(self, request: Request) -> Response | None:
        """The answer to a browser's question before a request; None when this is none."""
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers:
            return None
        if not self._is_allowed(request.headers.get("Origin")):
            return Response(b"")
        asked = request.headers.get("Access-Control-Request-Headers").lower().split(",")
        allowed = [name for name in map(str.strip, asked) if self._is_header(name)]
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Max-Age": str(_MAX_AGE_S),
        }
        if allowed:
            headers["Access-Control-Allow-Headers"] = ", ".join(allowed)
        return Response(b"", headers=headers)

    def headers(self, request: Request) -> dict[str, str]:
        """What every answer to it has."""
        origin = request.headers.get("Origin")
        if not self._is_allowed(origin):
            # An answer without permission must not be kept for a page that has it.
            return {"Vary": "Origin"}
        return {
            "Vary": "Origin",
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Expose-Headers": _EXPOSED,
        }

    def _is_allowed(self, origin: str) -> bool:
        if origin in self._origins:
            return True
        return _ANY in self._origins and origin.isascii() and origin.isprintable() and origin != ""

    def _is_header(self, name: str) -> bool:
        return name in self._headers or name.startswith(_HEADER_PREFIXES)
