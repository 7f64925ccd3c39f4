"""Who says that a person is who they claim to be.

`LocalAccounts` checks Argon2id hashes in Bud's own table. An outside provider such as Keycloak
implements the same interface.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Protocol

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from core.accounts.models import User
from core.kernel.crypto import Secret
from core.kernel.errors import InvalidInput

MIN_PASSWORD_CHARACTERS = 10
# A hash takes 64 MiB: strangers at the log-in must not take the machine's memory.
_MAX_HASHES_AT_ONCE = 2


class IdentityProvider(Protocol):
    """Checks a password, or hands out a new one."""

    def verify(self, user: User | None, password: Secret) -> bool:
        """Whether `password` is that user's; takes as long for an unknown user."""

    def set_password(self, user: User, password: Secret) -> None:
        """Give the user a new password. InvalidInput when it is too weak."""


class LocalAccounts:
    """Argon2id with the library's current parameters (RFC 9106, low-memory profile)."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turn = threading.BoundedSemaphore(_MAX_HASHES_AT_ONCE)
        self._decoy = self._hasher.hash("nobody has this password")

    def verify(self, user: User | None, password: Secret) -> bool:
        """Whether `password` is that user's; an unknown user costs the same time."""
        stored = user.password_hash if user is not None else None
        try:
            with self._turn:
                matches = self._hasher.verify(stored or self._decoy, password.reveal())
        except (VerificationError, InvalidHashError):
            return False
        return matches and stored is not None

    def set_password(self, user: User, password: Secret) -> None:
        """Store the hash of a new password."""
        if len(password.reveal()) < MIN_PASSWORD_CHARACTERS:
            raise InvalidInput(
                f"The password has fewer than {MIN_PASSWORD_CHARACTERS} characters.",
                remedy="Choose a longer one; a few words in a row are good.",
            )
        user.password_hash = self._hasher.hash(password.reveal())


@cache
def provider() -> IdentityProvider:
    """The provider in use."""
    return LocalAccounts()
