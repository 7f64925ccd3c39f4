from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from core.kernel import audit, keys
from core.kernel.actor import Actor
from core.kernel.crypto import Keyring, Secret
from core.kernel.errors import KeyProblem, PermissionDenied


@pytest.fixture
def folder(tmp_path: Path, _made_keys: Path) -> Path:
    shutil.copytree(_made_keys, tmp_path / "keys")
    return tmp_path / "keys"


def test_a_sealed_value_opens_again_and_names_its_key(folder: Path) -> None:
    ring = Keyring(folder)
    sealed = ring.seal(Secret("sk-123"), context="provider:a")
    assert "sk-123" not in sealed
    assert sealed.split(".")[1] == ring.current_key_id
    assert ring.open(sealed, context="provider:a") == Secret("sk-123")


def test_a_value_moved_to_another_context_is_refused(folder: Path) -> None:
    ring = Keyring(folder)
    sealed = ring.seal(Secret("sk-123"), context="provider:a")
    with pytest.raises(KeyProblem):
        ring.open(sealed, context="provider:b")


def test_old_values_open_after_both_kinds_of_rotation(folder: Path) -> None:
    ring = Keyring(folder)
    first = ring.seal(Secret("one"))
    ring.rotate()
    second = ring.seal(Secret("two"))
    ring.rotate(wrapping_key=True)
    fresh = Keyring(folder)
    assert [fresh.open(value).reveal() for value in (first, second)] == ["one", "two"]
    assert len({value.split(".")[1] for value in (first, second)}) == 2
    assert len(list(folder.glob("wrapping-*.pem"))) == 1


def test_key_files_are_for_the_owner_only(folder: Path) -> None:
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    (folder / "current.json").chmod(0o644)
    with pytest.raises(KeyProblem, match="chmod 600"):
        Keyring(folder).seal(Secret("x"))


def test_a_missing_key_is_named(folder: Path) -> None:
    sealed = Keyring(folder).seal(Secret("x"))
    next(folder.glob("wrapping-*.pem")).unlink()
    with pytest.raises(KeyProblem, match="is missing"):
        Keyring(folder).open(sealed)


@pytest.mark.parametrize("key_id", ["a" * 300, "a/b", "", "A"])
def test_what_is_no_id_of_a_key_names_no_file(folder: Path, key_id: str) -> None:
    with pytest.raises(KeyProblem, match="sealed form"):
        Keyring(folder).open(f"bud1.{key_id}.eHg=")


def test_a_wrong_wrapping_key_is_refused(folder: Path, tmp_path: Path) -> None:
    sealed = Keyring(folder).seal(Secret("x"))
    other = Keyring.open_or_create(tmp_path / "other")
    name = json.loads((folder / "current.json").read_text())["wrapping_key"]
    wrong = next(other.folder.glob("wrapping-*.pem"))
    shutil.copy(wrong, folder / f"wrapping-{name}.pem")
    with pytest.raises(KeyProblem):
        Keyring(folder).open(sealed)


def test_keys_without_a_manifest_are_never_replaced(folder: Path) -> None:
    (folder / "current.json").unlink()
    with pytest.raises(KeyProblem, match="no current"):
        Keyring.open_or_create(folder)


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r}"


def test_only_an_admin_rotates_and_it_is_written_down(data_dir: Path, admin: Actor) -> None:
    before = keys.keyring().current_key_id
    with pytest.raises(PermissionDenied):
        keys.rotate(Actor("usr_1", "ana", admin.tenant_id, projects={"prj_a": "admin"}))
    assert keys.keyring().current_key_id == before
    rotated = keys.rotate(admin)
    assert keys.keyring().current_key_id == rotated != before
    newest = audit.entries(admin, None, limit=1)[0]
    assert (newest.action, newest.subject) == (
        "encryption.data_key_rotated",
        f"data_key:{rotated}",
    )
