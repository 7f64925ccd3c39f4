"""What a worker is told of callers and of traces, by variables of the environment."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from core.kernel import addresses
from core.kernel.crypto import Secret
from core.kernel.errors import InvalidInput


class Issuer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose access tokens (JWT) are accepted, and what their claims mean.

    `name` stands before the users' names, as in `keycloak:ada`. `issuer` is the token's `iss`;
    its keys are at `jwks_url`, or where its discovery document says. A token opens `project`, or
    those that `project_claim` names, by id or name. Claims are given by name or by path, such as
    `realm_access.roles`. Each of `required_claims` must hold its value, alone or among others.
    """

    name: str
    issuer: str
    audience: str
    jwks_url: str = ""
    project: str = ""
    project_claim: str = "bud_project"
    user_claim: str = "sub"
    models_claim: str = ""
    required_claims: dict[str, str] = {}
    leeway_s: float = 30.0


def issuers(text: str) -> tuple[Issuer, ...]:
    """The issuers in a JSON list; "" is none. Raises InvalidInput."""
    if not text.strip():
        return ()
    try:
        found = msgspec.json.decode(text, type=tuple[Issuer, ...])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"The issuers of access tokens cannot be read: {error}.",
            remedy='Write BUD_JWT_ISSUERS as [{"name": "keycloak", "issuer": "https://…", '
            '"audience": "bud"}]; see docs/access.md.',
        ) from None
    for each in found:
        if not (each.name.isidentifier() and each.issuer and each.audience):
            raise InvalidInput(
                "An issuer needs a name of letters and digits, an issuer and an audience.",
                value=each.name,
                remedy="Give all three in BUD_JWT_ISSUERS.",
            )
    if len({each.issuer for each in found} | {each.name for each in found}) < 2 * len(found):
        raise InvalidInput("Two issuers are the same.", remedy="Mend BUD_JWT_ISSUERS.")
    return found


@dataclass(frozen=True)
class AccessConfig:
    """What is told of callers at the start.

    `trusted_proxies` are the CIDR ranges of proxies whose `X-Forwarded-For` and `country_header`
    are believed; from anybody else both are hearsay. `cors_origins` are the web origins whose pages
    may call the gateway, `*` for every one; `cors_headers` what they may send beyond the usual.
    """

    issuers: tuple[Issuer, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    country_header: str = ""
    cors_origins: tuple[str, ...] = ()
    cors_headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class TracingConfig:
    """Where traces go: OTLP over HTTP, as JSON; "" makes none.

    `headers` are sent with them, and may hold a secret. `ratio` is the share of requests that are
    traced when their caller does not say.
    """

    endpoint: str = ""
    headers: Mapping[str, Secret] = field(default_factory=dict)
    ratio: float = 0.01


def access_config(environment: Mapping[str, str]) -> AccessConfig:
    """What the variables say of callers. Raises InvalidInput, which names the variable."""
    proxies = _listed(environment, "BUD_TRUSTED_PROXIES")
    try:
        proxies = tuple(addresses.normalised(each) for each in proxies)
    except ValueError as error:
        raise InvalidInput(f"{error}.", remedy="Mend BUD_TRUSTED_PROXIES.") from None
    origins = _listed(environment, "BUD_CORS_ORIGINS")
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and origin != f"{parts.scheme}://{parts.netloc}":
            raise InvalidInput(
                "An origin is a scheme and a host, without a path.",
                value=origin,
                remedy="Write BUD_CORS_ORIGINS as https://app.example.org,https://other.example.",
            )
    return AccessConfig(
        issuers=issuers(environment.get("BUD_JWT_ISSUERS", "")),
        trusted_proxies=proxies,
        country_header=environment.get("BUD_COUNTRY_HEADER", "").strip(),
        cors_origins=origins,
        cors_headers=_listed(environment, "BUD_CORS_HEADERS"),
    )


def tracing_config(environment: Mapping[str, str]) -> TracingConfig:
    """What the variables say of traces. Raises InvalidInput, which names the variable."""
    endpoint = environment.get("BUD_OTLP_ENDPOINT", "").strip()
    parts = urlsplit(endpoint)
    if parts.username is not None:
        raise InvalidInput(
            "The address for traces holds a user or a password.",
            remedy="Leave them out of BUD_OTLP_ENDPOINT, and send them by BUD_OTLP_HEADERS.",
        )
    if endpoint and parts.scheme not in ("http", "https"):
        raise InvalidInput(
            "Traces go to an address with http or https.",
            value=endpoint,
            remedy="Write BUD_OTLP_ENDPOINT as http://localhost:4318.",
        )
    headers = {}
    for each in _listed(environment, "BUD_OTLP_HEADERS"):
        name, sign, value = each.partition("=")
        if not sign or not name.strip() or not (value.isascii() and value.isprintable()):
            raise InvalidInput(
                "A header for traces is not name=value.",
                remedy="Write BUD_OTLP_HEADERS as name=value,other=value.",
            )
        headers[name.strip()] = Secret(value.strip())
    return TracingConfig(endpoint, headers, _ratio(environment.get("BUD_TRACE_RATIO") or "0.01"))


def _ratio(text: str) -> float:
    with suppress(ValueError):
        if 0 <= (ratio := float(text)) <= 1:
            return ratio
    raise InvalidInput(
        "The share of requests that are traced is a number from 0 to 1.",
        value=text,
        remedy="Mend BUD_TRACE_RATIO.",
    )


def _listed(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    given = environment.get(name, "").split(",")
    return tuple(each.strip() for each in given if each.strip())
