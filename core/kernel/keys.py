"""The process-wide keyring, from the settings (the gateway builds its own from its arguments)."""

from __future__ import annotations

from functools import cache

from core.kernel.crypto import Keyring
from core.kernel.settings import settings


@cache
def keyring() -> Keyring:
    """The keyring of this installation, made on the first start."""
    return Keyring.open_or_create(settings().keys_folder)
