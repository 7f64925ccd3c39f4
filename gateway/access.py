"""Who may ask what: keys and access tokens, their restrictions, and blocking rules."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from core.contracts.batch import SECRET_PREFIX
from core.contracts.request_fact import RequestFact
from core.contracts.route_table import ApiKey
from gateway import blocks
from gateway.access_config import AccessConfig
from gateway.blocks import Visit
from gateway.errors import GatewayError
from gateway.http_request import Headers, Request
from gateway.networks import Address, Networks, address, networks
from gateway.table import TableHolder
from gateway.tickets import Tickets

if TYPE_CHECKING:
    from gateway.access_tokens import AccessTokens

_FORWARDED_FOR = "X-Forwarded-For"
# Proxies in front of proxies; what stands before them is not looked at.
_MOST_HOPS = 16
# The header by which OpenAI's clients name a project.
PROJECT_HEADER = "OpenAI-Project"
_DOTS_OF_A_TOKEN = 2
_KEY_PROTOCOL = "openai-insecure-api-key."


class AccessGate:
    """Lets requests in, or says why not.

    Args:
        config: Trusted proxies, and the header with the caller's country.
        tables: With the route table in use.
    """

    def __init__(self, config: AccessConfig, tables: TableHolder) -> None:
        self._tables = tables
        self._tokens = _access_tokens(config)
        self._tickets = Tickets(tables)
        self._trusted = Networks(config.trusted_proxies) if config.trusted_proxies else None
        self._country_header = config.country_header

    def known(self, request: Request) -> ApiKey | None:
        """The key of a request about which nothing else is to be asked; None: `admit` decides."""
        table = self._tables.current
        if table.blocks.everywhere or table.blocks.by_project:
            return None
        key = table.key(request.headers.once(_fingerprint))
        return None if key is None or key.scopes or key.networks else key

    def by_id(self, key_id: str) -> ApiKey | None:
        """An API key; None when it is revoked or expired, or was never one."""
        return self._tickets.by_id(key_id)

    async def admit(self, request: Request, fact: RequestFact) -> ApiKey:
        """The key that a request bears; its ids are written into the fact.

        Raises:
            GatewayError: A rule blocks it, it bears no key that is known, or the key may not be
                used so.
        """
        table = self._tables.current
        if table.blocks.everywhere:
            self.check(request, fact)
        secret = request.headers.once(_secret)
        if not secret:
            raise GatewayError(
                "authentication",
                "There is no API key. Send it as 'Authorization: Bearer bud-…'.",
            )
        key = table.key(request.headers.once(_fingerprint))
        if key is None and secret.startswith(SECRET_PREFIX):
            key = await self._tickets.key(secret)
        if key is None:
            if self._tokens is None or secret.count(".") != _DOTS_OF_A_TOKEN:
                raise GatewayError(
                    "authentication",
                    "This API key is unknown, revoked or expired. Make one on the API keys page.",
                )
            asked = request.headers.get(PROJECT_HEADER)
            key = await self._tokens.key(secret, asked, table.projects)
        fact.key_id, fact.project_id, fact.user_id = key.id, key.project_id, key.user_id
        if key.scopes or key.networks:
            self._check_key(key, request, fact)
        if table.blocks.by_project:
            own = table.blocks.by_project.get(key.project_id, ())
            self._refuse_blocked(own, request, fact)
        return key

    def check(self, request: Request, fact: RequestFact) -> None:
        """Refuse what a rule of every project blocks. Raises GatewayError."""
        self._refuse_blocked(self._tables.current.blocks.everywhere, request, fact)

    def _refuse_blocked(
        self, rules: tuple[blocks.Rule, ...], request: Request, fact: RequestFact
    ) -> None:
        if not rules:
            return
        name = blocks.first_match(rules, self._visit(request))
        if name:
            fact.blocked_by = name
            raise GatewayError("blocked", f"This request is blocked by the rule {name!r}.")

    def _check_key(self, key: ApiKey, request: Request, fact: RequestFact) -> None:
        scope = fact.endpoint
        if key.scopes and scope not in key.scopes and scope.partition(".")[0] not in key.scopes:
            raise GatewayError(
                "permission",
                f"This API key may not use {request.path[:200]}; it may use: "
                f"{', '.join(key.scopes)}.",
                code="scope_not_allowed",
            )
        if not key.networks:
            return
        caller = self._caller(request)
        if caller not in networks(key.networks):
            raise GatewayError(
                "permission",
                f"This API key may not be used from the address {caller or 'unknown'}.",
                code="address_not_allowed",
            )

    def _visit(self, request: Request) -> Visit:
        headers = request.headers
        country = ""
        if self._country_header and self._is_trusted(address(request.remote)):
            country = headers.get(self._country_header, "").strip().upper()
        return Visit(self._caller(request), country, headers.get("User-Agent", ""), request.path)

    def _caller(self, request: Request) -> Address | None:
        """Where a request comes from: behind trusted proxies, what they say."""
        nearest = address(request.remote)
        if not self._is_trusted(nearest) or _FORWARDED_FOR not in request.headers:
            return nearest
        hops = request.headers.get(_FORWARDED_FOR).rsplit(",", _MOST_HOPS)
        # Each proxy adds whom it saw at the end; what stands before an untrusted one is hearsay.
        for hop in reversed(hops):
            found = address(_without_port(hop.strip()))
            if found is None:
                return nearest
            nearest = found
            if not self._is_trusted(nearest):
                break
        return nearest

    def _is_trusted(self, hop: Address | None) -> bool:
        return self._trusted is not None and hop in self._trusted


def _without_port(hop: str) -> str:
    """An address as some proxies write it: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _access_tokens(config: AccessConfig) -> AccessTokens | None:
    if not config.issuers:
        return None
    # 12 MB of memory, which a worker without issuers does without.
    from gateway.access_tokens import AccessTokens

    return AccessTokens(config.issuers)


def _fingerprint(headers: Headers) -> str:
    # A header may hold bytes that are no text: they are surrogates here.
    return hashlib.sha256(_secret(headers).encode("utf-8", "surrogateescape")).hexdigest()


def _secret(headers: Headers) -> str:
    scheme, _, secret = headers.get("Authorization", "").partition(" ")
    secret = secret.strip() if scheme.lower() == "bearer" else ""
    return secret or headers.get("x-api-key", "").strip() or _of_protocol(headers)


def _of_protocol(headers: Headers) -> str:
    """The key of a browser's WebSocket, which can say it nowhere else."""
    for offered in headers.get("Sec-WebSocket-Protocol").split(","):
        name, found, secret = offered.strip().partition(_KEY_PROTOCOL)
        if found and not name:
            return secret
    return ""
