"""Argon2id at its real cost."""

from __future__ import annotations

import pytest

from core.accounts.identity import LocalAccounts
from core.accounts.models import User
from core.kernel.crypto import Secret
from core.kernel.errors import InvalidInput


def test_a_password_is_kept_as_argon2id_of_64_mib() -> None:
    user = User(id="usr_1", email="ana@example.org")
    local = LocalAccounts()
    local.set_password(user, Secret("correct-horse"))
    assert user.password_hash is not None
    assert user.password_hash.startswith("$argon2id$v=19$m=65536,")
    assert local.verify(user, Secret("correct-horse"))
    assert not local.verify(user, Secret("correct-hors"))


def test_who_has_no_password_here_is_refused() -> None:
    local = LocalAccounts()
    outside = User(id="usr_1", email="ana@example.org", password_hash=None)
    assert not local.verify(outside, Secret("nobody has this password"))
    assert not local.verify(None, Secret("nobody has this password"))
    broken = User(id="usr_2", email="ben@example.org", password_hash="not a hash")
    assert not local.verify(broken, Secret("x"))


def test_a_short_password_is_refused() -> None:
    with pytest.raises(InvalidInput, match="fewer than 10"):
        LocalAccounts().set_password(User(id="usr_1"), Secret("123456789"))
