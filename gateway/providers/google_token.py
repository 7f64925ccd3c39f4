"""Access tokens for a Google service account: a signed assertion, exchanged at its token URI.

Source: https://developers.google.com/identity/protocols/oauth2/service-account#httprest (November
2026) and RFC 7523.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

import msgspec

from core.kernel import clock
from gateway.errors import GatewayError
from gateway.upstream import Broken, ConnectFailed, Pool, TimedOut

log = logging.getLogger(__name__)

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_ANSWER_S = 15.0
_MAX_ANSWER_BYTES = 64 * 1024
# A token this close to its end is renewed beside the requests that still use it.
_RENEW_S = 600.0
_LEAST_S = 30.0
_RETRY_S = 10.0


class _Account(msgspec.Struct):
    client_email: str
    private_key: str
    token_uri: str
    private_key_id: str = ""


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 3600.0


class Tokens:
    """The token of one service account, held and renewed."""

    def __init__(self, service_account: str) -> None:
        self.token = ""
        self._account_file = service_account
        self._ends_s = 0.0
        self._next_try_s = 0.0
        self._renewal: asyncio.Task[None] | None = None

    async def ready(self, connect_s: float) -> None:
        """Have a token that holds; only the first request waits for one.

        Raises:
            ConnectFailed: The token's server cannot be reached.
            GatewayError: It refuses, or the account's file is none.
        """
        left_s = self._ends_s - clock.monotonic_s()
        if left_s > _RENEW_S:
            return
        if left_s <= _LEAST_S:
            await asyncio.shield(self._renewing(connect_s))
        elif clock.monotonic_s() >= self._next_try_s:
            self._renewing(connect_s).add_done_callback(_logged)

    def _renewing(self, connect_s: float) -> asyncio.Task[None]:
        """The one renewal under way, begun now if there is none."""
        if self._renewal is None or self._renewal.done():
            self._next_try_s = clock.monotonic_s() + _RETRY_S
            self._renewal = asyncio.create_task(self._renew(connect_s))
        return self._renewal

    async def _renew(self, connect_s: float) -> None:
        account = _read(self._account_file)
        # Signing is arithmetic over 2048 bits: a millisecond that other requests need not wait for.
        assertion = await asyncio.to_thread(_assertion, account, int(clock.unix_s()))
        form = urlencode({"grant_type": _GRANT, "assertion": assertion}).encode()
        status, content = await _post_form(account.token_uri, form, connect_s)
        try:
            token = msgspec.json.decode(content, type=_Token)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise _refused(status) from None
        if status != 200 or not token.access_token.isascii():
            raise _refused(status)
        self.token = token.access_token
        self._ends_s = clock.monotonic_s() + token.expires_in


def _logged(renewal: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        if (error := renewal.exception()) is not None:
            log.warning("a token of Google's was not renewed: %s", error)


def _read(service_account: str) -> _Account:
    try:
        return msgspec.json.decode(service_account, type=_Account)
    except msgspec.DecodeError:
        # Not chained: the cause may quote the key.
        raise GatewayError(
            "upstream_error",
            "The credentials of Google's account are no key file of a service account.",
            code="provider_credentials",
        ) from None


def _assertion(account: _Account, now_unix_s: int) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    head = {"alg": "RS256", "typ": "JWT"}
    if account.private_key_id:
        head["kid"] = account.private_key_id
    claims = {
        "iss": account.client_email,
        "scope": _SCOPE,
        "aud": account.token_uri,
        "iat": now_unix_s,
        "exp": now_unix_s + 3600,
    }
    signed = b".".join(_base64url(msgspec.json.encode(each)) for each in (head, claims))
    try:
        key = serialization.load_pem_private_key(account.private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _refused(0) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise _refused(0)
    signature = key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    return (signed + b"." + _base64url(signature)).decode()


def _base64url(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


async def _post_form(url: str, form: bytes, connect_s: float) -> tuple[int, bytes]:
    parts = urlsplit(url)
    pool = Pool(url, "", 1)
    connection = await pool.connect(connect_s)
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    content = b""
    try:
        connection.send(pool.own_head(parts.path or "/", headers, len(form)), form)
        await connection.head(_ANSWER_S)
        while len(content) < _MAX_ANSWER_BYTES:
            read = await connection.read(_ANSWER_S)
            if not read:
                break
            content += read
    except (Broken, TimedOut) as error:
        raise ConnectFailed(f"Google's token server: {error}") from None
    finally:
        connection.abort()
    return connection.status, content


def _refused(status: int) -> GatewayError:
    return GatewayError(
        "upstream_error",
        f"Google gives no token for the service account ({status or 'its key is none'}). "
        "Renew its credentials on the Models page.",
        code="provider_credentials",
    )
