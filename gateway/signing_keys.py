"""The public keys of an issuer of access tokens: fetched, kept, and fetched anew when they turn."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from core.kernel import clock
from gateway.access_config import Issuer

log = logging.getLogger(__name__)

# Signatures by a public key only: with a shared secret, whoever can check could also sign.
_OF_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_OF_CURVE = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ALGORITHMS = _OF_RSA | frozenset(_OF_CURVE.values()) | {"EdDSA"}

# What a server that is out of reach, or answers with something else than keys, makes of it.
_UNUSABLE = (OSError, HTTPException, ValueError, TypeError, msgspec.MsgspecError)
_REFRESH_S = 300.0
_LEAST_INTERVAL_S = 10.0
_ANSWER_S = 5.0
_MAX_ANSWER_BYTES = 1_000_000
_LEAST_RSA_BITS = 2048


class UnknownKey(Exception):
    """The issuer has no such key."""


class KeysUnavailable(Exception):
    """The issuer's keys could not be fetched yet."""


@dataclass(frozen=True, slots=True)
class _Key:
    public_key: Any
    algorithms: frozenset[str]


class SigningKeys:
    """The keys of one issuer.

    They are fetched when they are first needed, in the background every five minutes while they
    are used, and at once for a key that is not known, but never more often than every ten seconds.
    When fetching fails, the last ones go on to hold.
    """

    def __init__(self, issuer: Issuer) -> None:
        self.version = 0
        self._issuer = issuer
        self._keys: dict[str, _Key] = {}
        self._fetched_s = float("-inf")
        self._next_try_s = float("-inf")
        self._content: list[dict[str, Any]] = []
        self._refresh: asyncio.Task[None] | None = None

    async def find(self, key_id: object, algorithm: str) -> Any:
        """The public key of an id, which must be one for this algorithm.

        Raises:
            UnknownKey: The issuer has none such.
            KeysUnavailable: Its keys could never be fetched.
        """
        found = self._suitable(key_id, algorithm)
        if found is None and (self._is_running or clock.monotonic_s() >= self._next_try_s):
            await asyncio.shield(self._refreshing())
            found = self._suitable(key_id, algorithm)
        self.refresh_if_old()
        if found is not None:
            return found
        if not self.version:
            raise KeysUnavailable(f"the keys of {self._issuer.issuer} cannot be fetched")
        raise UnknownKey

    def refresh_if_old(self) -> None:
        """Begin to fetch the keys anew when it is time to; nobody waits for it."""
        now_s = clock.monotonic_s()
        if now_s - self._fetched_s > _REFRESH_S and now_s >= self._next_try_s:
            self._refreshing()

    @property
    def _is_running(self) -> bool:
        return self._refresh is not None and not self._refresh.done()

    def _refreshing(self) -> asyncio.Task[None]:
        """The one fetch under way, begun now if there is none. It raises nothing."""
        if self._refresh is None or self._refresh.done():
            self._next_try_s = clock.monotonic_s() + _LEAST_INTERVAL_S
            self._refresh = asyncio.create_task(self._fetch())
        return self._refresh

    async def _fetch(self) -> None:
        try:
            content = await asyncio.to_thread(_fetched, self._issuer)
            keys = _usable(content)
        except _UNUSABLE as error:
            log.error("the keys of %s are kept as they are: %s", self._issuer.issuer, error)
            return
        self._fetched_s = clock.monotonic_s()
        if content != self._content:
            self._content, self._keys = content, keys
            self.version += 1

    def _suitable(self, key_id: object, algorithm: str) -> Any:
        if key_id is None and len(self._keys) == 1:
            (key_id,) = self._keys
        known = self._keys.get(key_id) if isinstance(key_id, str) else None
        if known is None:
            return None
        # The key says what it is for, not the token.
        return known.public_key if algorithm in known.algorithms else None


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _Keys(msgspec.Struct):
    keys: list[dict[str, Any]]


def _fetched(issuer: Issuer) -> list[dict[str, Any]]:
    """The issuer's keys as they are now. Raises `_UNUSABLE`."""
    url = issuer.jwks_url
    if not url:
        where = issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"
        found = msgspec.json.decode(_get(where), type=_Discovery)
        if found.issuer != issuer.issuer:
            raise ValueError(f"{where} is about another issuer")
        url = found.jwks_uri
    return msgspec.json.decode(_get(url), type=_Keys).keys


def _get(url: str) -> bytes:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is no address on the web")
    asked = urllib.request.Request(url, headers={"Accept": "application/json"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=_ANSWER_S) as answer:  # noqa: S310
        content: bytes = answer.read(_MAX_ANSWER_BYTES + 1)
    if len(content) > _MAX_ANSWER_BYTES:
        raise ValueError(f"{url} answers with more than {_MAX_ANSWER_BYTES} bytes")
    return content


def _usable(content: list[dict[str, Any]]) -> dict[str, _Key]:
    """The keys that can check a signature, by id. Raises ValueError: there is none."""
    keys: dict[str, _Key] = {}
    for number, each in enumerate(content):
        if each.get("use", "sig") != "sig":
            continue
        try:
            public_key = jwt.PyJWK(each).key
        except (jwt.PyJWTError, ValueError, TypeError):
            continue  # of a kind that is not known here
        algorithms = _algorithms(public_key)
        if "alg" in each:
            algorithms &= {each["alg"]}
        if algorithms:
            keys[str(each.get("kid", f"#{number}"))] = _Key(public_key, algorithms)
    if not keys:
        raise ValueError("there is no key among them that can check a signature")
    return keys


def _algorithms(key: object) -> frozenset[str]:
    """The algorithms a key may be used with; none for a shared secret or a private key."""
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS:
        return _OF_RSA
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _OF_CURVE:
        return frozenset({_OF_CURVE[key.curve.name]})
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return frozenset({"EdDSA"})
    return frozenset()
