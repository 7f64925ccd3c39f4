"""The process-wide keyring, from the settings (the gateway builds its own from its arguments)."""

from __future__ import annotations

from functools import cache

from core.kernel import audit, database
from core.kernel.actor import Actor
from core.kernel.crypto import Keyring
from core.kernel.settings import settings


@cache
def keyring() -> Keyring:
    """The keyring of this installation, made on the first start."""
    return Keyring.open_or_create(settings().keys_folder)


def rotate(actor: Actor, *, wrapping_key: bool = False) -> str:
    """Make a new data key for new values and return its id; old values stay readable. Admins only.

    Args:
        actor: Who asks.
        wrapping_key: Also make a new RSA key, wrap every data key with it, delete the former one.
    """
    actor.require("encryption:rotate")
    key_id = keyring().rotate(wrapping_key=wrapping_key)
    action = "encryption.wrapping_key_replaced" if wrapping_key else "encryption.data_key_rotated"
    with database.transaction() as tx:
        audit.record(tx, actor, action, f"data_key:{key_id}")
    return key_id
