"""Access tokens (JWT) of outside issuers, accepted beside API keys: docs/access.md.

A token is verified once; until it expires, what it says is found again by its hash, so that the
request path pays for no signature. Imported only where issuers are configured.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from core.contracts.route_table import ApiKey, Project
from core.kernel import clock
from gateway.access_config import Issuer
from gateway.errors import GatewayError
from gateway.signing_keys import ALGORITHMS, KeysUnavailable, SigningKeys, UnknownKey

_MAX_TOKEN_BYTES = 16 * 1024
_MAX_KEPT = 10_000
_MAX_USER = 200
_RETRY_S = 2


@dataclass(slots=True)
class _Verified:
    """What a token says: until when, whose it is, in which projects, for which models."""

    ends_unix_s: float
    user_id: str
    projects: tuple[str, ...]
    models: tuple[str, ...]
    keys_version: int
    issuer: Issuer
    keys: dict[str, ApiKey] = field(default_factory=dict)


class AccessTokens:
    """The tokens of all issuers.

    Args:
        issuers: Whose tokens are accepted.
    """

    def __init__(self, issuers: tuple[Issuer, ...]) -> None:
        self._issuers = {issuer.issuer: issuer for issuer in issuers}
        self._keys = {issuer.issuer: SigningKeys(issuer) for issuer in issuers}
        self._known: OrderedDict[bytes, _Verified] = OrderedDict()

    async def key(self, token: str, asked: str, projects: Mapping[str, Project]) -> ApiKey:
        """What a token opens, in the form of an API key.

        Args:
            token: As it was sent.
            asked: The project the caller names, by id or name; "" when it names none.
            projects: By id and name.

        Raises:
            GatewayError: The token is not valid, or opens no project.
        """
        mark = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = self._known.get(mark)
        if found is None or found.ends_unix_s <= clock.unix_s() or self._is_outdated(found):
            self._known.pop(mark, None)
            found = await self._verified(token)
            self._known[mark] = found
            if len(self._known) > _MAX_KEPT:
                self._known.popitem(last=False)
        return _opened(found, asked, projects)

    def _is_outdated(self, found: _Verified) -> bool:
        """Whether the issuer has other keys now: one that is withdrawn must not go on to hold."""
        keys = self._keys[found.issuer.issuer]
        keys.refresh_if_old()
        return keys.version != found.keys_version

    async def _verified(self, token: str) -> _Verified:
        try:
            return await self._decoded(token)
        except jwt.ExpiredSignatureError:
            raise _refused("it has expired. Get a new one") from None
        except jwt.ImmatureSignatureError:
            raise _refused("it is not valid yet") from None
        except jwt.InvalidAudienceError:
            raise _refused("it is meant for another audience") from None
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"it lacks the claim {error.claim!r}") from None
        except jwt.InvalidSignatureError:
            raise _refused("its signature does not match") from None
        except UnknownKey:
            raise _refused("it is signed with a key that its issuer does not have") from None
        except KeysUnavailable as error:
            raise GatewayError(
                "authentication",
                f"Access tokens cannot be checked now: {error}. Try again soon.",
                status=503,
                code="issuer_unavailable",
                retry_after_s=_RETRY_S,
            ) from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            # What PyJWT says may quote the token.
            raise _refused("it is not well formed") from None

    async def _decoded(self, token: str) -> _Verified:
        if len(token) > _MAX_TOKEN_BYTES or not token.isascii():
            raise ValueError("not a token")
        header = jwt.get_unverified_header(token)
        # Read to find whose keys to check it with; nothing else of it is believed before that.
        unchecked = jwt.decode(token, options={"verify_signature": False})
        name = unchecked.get("iss")
        issuer = self._issuers.get(name) if isinstance(name, str) else None
        if issuer is None:
            raise _refused("its issuer is not one that this gateway accepts")
        algorithm = header.get("alg")
        if algorithm not in ALGORITHMS:
            raise _refused("its algorithm is not one that is accepted")
        keys = self._keys[issuer.issuer]
        key = await keys.find(header.get("kid"), algorithm)
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=issuer.audience,
            issuer=issuer.issuer,
            leeway=issuer.leeway_s,
            options={"require": ["exp", "iss", "aud"]},
        )
        return _read(claims, issuer, keys.version)


def _read(claims: dict[str, Any], issuer: Issuer, keys_version: int) -> _Verified:
    for path, wanted in issuer.required_claims.items():
        if wanted not in _texts(claims, path):
            raise _refused(f"its claim {path!r} does not hold {wanted!r}", "permission")
    user = next(iter(_texts(claims, issuer.user_claim)), "")
    if not user or len(user) > _MAX_USER or not user.isprintable():
        raise _refused(f"its claim {issuer.user_claim!r} names no user")
    models = _texts(claims, issuer.models_claim) if issuer.models_claim else ()
    if issuer.models_claim and not models:
        raise _refused(f"its claim {issuer.models_claim!r} names no model", "permission")
    user_id = f"{issuer.name}:{user}"
    return _Verified(
        ends_unix_s=float(claims["exp"]) + issuer.leeway_s,
        user_id=user_id,
        projects=(issuer.project,) if issuer.project else _texts(claims, issuer.project_claim),
        models=models,
        keys_version=keys_version,
        issuer=issuer,
    )


def _texts(claims: dict[str, Any], path: str) -> tuple[str, ...]:
    """A claim as texts: one, several, or words in one as in `scope`; by its name, or by a path."""
    found: Any = claims.get(path)
    if found is None:
        found = claims
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
    if path == "scope" and isinstance(found, str):
        return tuple(found.split())
    if isinstance(found, str):
        return (found,)
    return tuple(str(each) for each in found) if isinstance(found, list) else ()


def _opened(found: _Verified, asked: str, projects: Mapping[str, Project]) -> ApiKey:
    open_to = {projects[name].id: projects[name] for name in found.projects if name in projects}
    if asked:
        wanted = projects.get(asked)
        open_to = {wanted.id: wanted} if wanted is not None and wanted.id in open_to else {}
    if len(open_to) > 1:
        names = ", ".join(sorted(project.name for project in open_to.values()))
        raise _refused(
            f"it opens several projects ({names}): name one in the header OpenAI-Project",
            "permission",
        )
    if not open_to:
        where = f"no project {asked[:80]!r}" if asked else "no project that is known here"
        raise _refused(f"it opens {where}", "permission")
    (project_id,) = open_to
    key = found.keys.get(project_id)
    if key is None:
        key = found.keys[project_id] = ApiKey(
            id=_key_id(found.user_id, project_id),
            sha256="",
            project_id=project_id,
            user_id=found.user_id,
            expires_unix_s=found.ends_unix_s,
            models=found.models,
        )
    return key


def _key_id(user_id: str, project_id: str) -> str:
    # As with other keys, an id means one project: limits are looked up by it.
    mark = hashlib.sha256(f"{user_id} {project_id}".encode()).hexdigest()
    return f"jwt_{mark[:26]}"


def _refused(why: str, kind: str = "authentication") -> GatewayError:
    return GatewayError(
        kind, f"This access token is not accepted: {why}.", code="invalid_access_token"
    )
