"""Fixtures every test may use: a fresh data folder, a migrated database, a keyring."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from core.accounts import identity
from core.kernel import database, keys
from core.kernel.actor import Actor
from core.kernel.crypto import Keyring
from core.kernel.settings import settings

# How long an example takes says how busy the machine is; only what it finds counts.
hypothesis_settings.register_profile(
    "bud", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("bud")


@pytest.fixture(scope="session")
def _made_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One keyring a test run: making an RSA-4096 key costs seconds."""
    folder = tmp_path_factory.mktemp("keyring") / "keys"
    Keyring.open_or_create(folder)
    return folder


@pytest.fixture(scope="session")
def keys_dir(_made_keys: Path) -> Path:
    """The keys of the test run, for who only seals and opens with them."""
    return _made_keys


@pytest.fixture(scope="session")
def _migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One migrated SQLite file a test run, copied by each test that needs a database."""
    folder = tmp_path_factory.mktemp("database")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUD_DATA_DIR", str(folder))
        _forget()
        database.migrate()
        database.dispose()
    _forget()
    return folder / "bud.db"


def _forget() -> None:
    database.dispose()
    settings.cache_clear()
    keys.keyring.cache_clear()


@pytest.fixture
def data_dir(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, _made_keys: Path, _migrated_database: Path
) -> Iterator[Path]:
    """A fresh data folder with keys and a migrated database; settings point at it."""
    folder = tmp_path / "bud"
    folder.mkdir()
    shutil.copytree(_made_keys, folder / "keys")
    shutil.copy(_migrated_database, folder / "bud.db")
    monkeypatch.setenv("BUD_DATA_DIR", str(folder))
    _forget()
    yield folder
    _forget()


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2id at its lowest cost; at its real one a hash takes up to half a second here."""
    cheap = identity.LocalAccounts(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    monkeypatch.setattr(identity, "provider", lambda: cheap)


@pytest.fixture
def admin() -> Actor:
    """Bud itself: allowed everything in the default tenant."""
    return Actor.system()
