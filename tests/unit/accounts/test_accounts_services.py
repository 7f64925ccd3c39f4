from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from core.accounts import api_keys
from core.accounts import services as accounts
from core.accounts.models import LogInFailure
from core.accounts.schemas import NewUser
from core.kernel import audit, clock, database
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import (
    Conflict,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    PermissionDenied,
    RateLimited,
)
from core.kernel.settings import settings
from core.projects import services as projects

PASSWORD = Secret("correct-horse-battery")
EMAIL = "admin@example.org"


pytestmark = pytest.mark.usefixtures("quick_passwords")


@pytest.fixture
def tenant(data_dir: Path) -> Path:
    accounts.bootstrap(EMAIL, PASSWORD)
    projects.bootstrap()
    return data_dir


def _log_in(email: str = EMAIL, password: Secret = PASSWORD) -> str:
    return accounts.log_in(email, password, "127.0.0.1").token.reveal()


def _member(admin: Actor, email: str, project_id: str | None) -> Actor:
    new: NewUser = accounts.add_user(admin, email, project_id=project_id)
    found = accounts.logged_in(_log_in(email, new.one_time_password))
    assert found is not None
    return found.actor


def test_the_first_start_makes_an_admin_once(data_dir: Path) -> None:
    first = accounts.bootstrap(EMAIL, None)
    assert first.one_time_password is not None
    assert accounts.bootstrap(EMAIL, None).one_time_password is None
    assert accounts.log_in(EMAIL, first.one_time_password, "x").must_change_password


def test_log_in_log_out(tenant: Path) -> None:
    token = _log_in("ADMIN@example.org ")
    found = accounts.logged_in(token)
    assert found is not None
    assert found.actor.is_admin
    accounts.log_out(token)
    assert accounts.logged_in(token) is None
    assert accounts.logged_in("") is None


def test_wrong_password_and_unknown_user_read_the_same_and_are_limited(tenant: Path) -> None:
    messages = set()
    for email in (EMAIL, "nobody@example.org") * 10:
        with pytest.raises(NotAuthenticated) as caught:
            accounts.log_in(email, Secret("wrong"), "10.0.0.1")
        messages.add(str(caught.value))
    assert len(messages) == 1
    for email in (EMAIL, "nobody@example.org"):
        with pytest.raises(RateLimited) as limited:
            accounts.log_in(email, PASSWORD, "10.0.0.1")
        assert 0 < limited.value.retry_after_s <= 300
    assert _log_in()  # another client is not locked out


def test_changing_the_password_ends_the_other_sessions(tenant: Path) -> None:
    mine, other = _log_in(), _log_in()
    with pytest.raises(NotAuthenticated):
        accounts.change_password(mine, Secret("wrong"), Secret("a new password"))
    with pytest.raises(InvalidInput, match="fewer than 10"):
        accounts.change_password(mine, PASSWORD, Secret("short"))
    accounts.change_password(mine, PASSWORD, Secret("a new password"))
    assert accounts.logged_in(mine) is not None
    assert accounts.logged_in(other) is None


def test_a_disabled_user_loses_sessions_and_keys_at_once(tenant: Path, admin: Actor) -> None:
    new = accounts.add_user(admin, "ana@example.org")
    token = _log_in("ana@example.org", new.one_time_password)
    found = accounts.logged_in(token)
    assert found is not None
    api_keys.create_key(found.actor, "prj_default", "mine")
    accounts.set_user_enabled(admin, new.user.id, False)
    assert accounts.logged_in(token) is None
    assert api_keys.active_keys() == []
    with pytest.raises(NotAuthenticated):
        _log_in("ana@example.org", new.one_time_password)


def test_the_last_admin_stays(tenant: Path, admin: Actor) -> None:
    only = accounts.list_users(admin)[0]
    with pytest.raises(Conflict, match="last admin"):
        accounts.set_user_enabled(admin, only.id, False)
    with pytest.raises(Conflict, match="last admin"):
        accounts.set_role(admin, only.id, "member")


def test_members_cannot_manage_people(tenant: Path, admin: Actor) -> None:
    member = _member(admin, "ana@example.org", "prj_default")
    for act in (
        lambda: accounts.list_users(member),
        lambda: accounts.add_user(member, "b@example.org"),
        lambda: projects.create_project(member, "Mine"),
        lambda: projects.set_member(member, "prj_default", member.user_id, "admin"),
    ):
        with pytest.raises(PermissionDenied):
            act()


def test_project_b_sees_nothing_of_a(tenant: Path, admin: Actor) -> None:
    project_b = projects.create_project(admin, "B")
    key = api_keys.create_key(admin, "prj_default", "of A").key
    stranger = _member(admin, "b@example.org", project_b.id)
    assert [project.name for project in projects.list_projects(stranger)] == ["B"]
    assert api_keys.list_keys(stranger, project_b.id) == []
    with pytest.raises(PermissionDenied):
        api_keys.list_keys(stranger, "prj_default")
    with pytest.raises(NotFound):
        api_keys.revoke_key(stranger, key.id)
    with pytest.raises(PermissionDenied):
        audit.entries(stranger, "prj_default")


def test_a_key_is_shown_once_and_stored_as_a_hash(tenant: Path, admin: Actor) -> None:
    new = api_keys.create_key(admin, "prj_default", "ci", api_keys.Restrictions(models=["smol"]))
    assert new.secret.reveal().startswith("bud-")
    assert new.key.last_four == new.secret.reveal()[-4:]
    stored = (tenant / "bud.db").read_bytes() + (tenant / "bud.db-wal").read_bytes()
    assert new.secret.reveal().encode() not in stored
    assert [key.models for key in api_keys.active_keys()] == [["smol"]]
    with pytest.raises(Conflict, match=new.key.last_four):
        api_keys.create_key(admin, "prj_default", " ci ")
    api_keys.revoke_key(admin, new.key.id)
    assert api_keys.active_keys() == []
    assert api_keys.list_keys(admin, "prj_default")[0].revoked_at is not None
    api_keys.create_key(admin, "prj_default", "ci")


def test_a_key_name_that_is_too_long_is_refused(tenant: Path, admin: Actor) -> None:
    with pytest.raises(InvalidInput, match="at most 120 characters; this one has 300"):
        api_keys.create_key(admin, "prj_default", "n" * 300)
    assert api_keys.list_keys(admin, "prj_default") == []
    api_keys.create_key(admin, "prj_default", "n" * 120)


def test_an_expired_key_is_not_active(
    tenant: Path, admin: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = clock.now() + timedelta(hours=1)
    api_keys.create_key(admin, "prj_default", "short", api_keys.Restrictions(expires_at=soon))
    assert len(api_keys.active_keys()) == 1
    monkeypatch.setattr(clock, "now", lambda: soon)
    assert api_keys.active_keys() == []
    with pytest.raises(InvalidInput):
        api_keys.create_key(admin, "prj_default", "late", api_keys.Restrictions(expires_at=soon))


def test_the_playground_key_is_one_a_person_and_project(tenant: Path, admin: Actor) -> None:
    first = api_keys.playground_key(admin, "prj_default")
    assert api_keys.playground_key(admin, "prj_default") == first
    listed = api_keys.list_keys(admin, "prj_default")
    assert [key.kind for key in listed] == ["playground"]
    api_keys.revoke_key(admin, listed[0].id)
    assert api_keys.playground_key(admin, "prj_default") != first


def test_every_change_leaves_one_audit_row(tenant: Path, admin: Actor) -> None:
    before = len(audit.entries(admin, None))
    new = accounts.add_user(admin, "ana@example.org")
    accounts.reset_password(admin, new.user.id)
    accounts.set_role(admin, new.user.id, "admin")
    actions = [entry.action for entry in audit.entries(admin, None)]
    assert len(actions) - before == 3
    assert set(actions[:3]) == {"user.created", "user.password_reset", "user.role_changed"}


def test_many_attempts_at_once_do_not_pass_the_limit(tenant: Path) -> None:
    def attempt(_number: int) -> str:
        try:
            accounts.log_in(EMAIL, Secret("wrong"), "10.0.0.1")
        except (NotAuthenticated, RateLimited) as error:
            return error.code
        return "logged in"

    with ThreadPoolExecutor(8) as pool:
        codes = Counter(pool.map(attempt, range(24)))
    assert codes == {"not_authenticated": 10, "rate_limited": 14}


def test_the_limit_outlives_a_restart(tenant: Path) -> None:
    for _ in range(10):
        with pytest.raises(NotAuthenticated):
            accounts.log_in(EMAIL, Secret("wrong"), "10.0.0.1")
    database.dispose()
    with pytest.raises(RateLimited):
        accounts.log_in(EMAIL, PASSWORD, "10.0.0.1")


def _guess(email: str, client: str, times: int) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for _ in range(times):
        with pytest.raises((NotAuthenticated, RateLimited)) as caught:
            accounts.log_in(email, Secret("wrong"), client)
        outcomes[caught.value.code] += 1
    return outcomes


def test_guessing_from_elsewhere_does_not_lock_the_account(tenant: Path) -> None:
    assert _guess(EMAIL, "10.0.0.1", 12) == {"not_authenticated": 10, "rate_limited": 2}
    assert accounts.log_in(EMAIL, PASSWORD, "10.0.0.2")
    assert accounts.log_in(EMAIL, PASSWORD, "10.0.0.3")


def test_a_client_that_tries_many_accounts_is_limited(tenant: Path) -> None:
    outcomes = sum((_guess(f"u{n}@example.org", "10.0.0.1", 9) for n in range(6)), Counter())
    assert outcomes == {"not_authenticated": 50, "rate_limited": 4}
    with pytest.raises(RateLimited):
        accounts.log_in(EMAIL, PASSWORD, "10.0.0.1")
    assert accounts.log_in(EMAIL, PASSWORD, "10.0.0.2")


def test_guessing_from_many_addresses_is_slowed_but_for_clients_known_before(
    tenant: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts.log_in(EMAIL, PASSWORD, "192.0.2.7")
    outcomes = sum((_guess(EMAIL, f"10.0.0.{n}", 10) for n in range(12)), Counter())
    assert outcomes == {"not_authenticated": 100, "rate_limited": 20}
    assert accounts.log_in(EMAIL, PASSWORD, "192.0.2.7")
    assert _guess(EMAIL, "10.0.1.1", 1) == {"rate_limited": 1}
    later = clock.now() + timedelta(minutes=6)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert accounts.log_in(EMAIL, PASSWORD, "10.0.1.1")


def test_failures_do_not_pile_up(tenant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int:
        with database.reading() as session:
            return len(session.scalars(select(LogInFailure.id)).all())

    _guess(EMAIL, "10.0.0.1", 30)
    assert kept() == 30  # ten checks, three rows each: what was refused leaves none
    later = clock.now() + timedelta(minutes=6)
    monkeypatch.setattr(clock, "now", lambda: later)
    _guess(EMAIL, "10.0.0.2", 1)
    assert kept() == 3


def test_who_leaves_a_project_loses_the_keys_made_in_it(tenant: Path, admin: Actor) -> None:
    project_b = projects.create_project(admin, "B")
    member = _member(admin, "ana@example.org", "prj_default")
    projects.set_member(admin, project_b.id, member.user_id, "member")
    in_both = accounts.logged_in(_log_in_again(admin, member.user_id))
    assert in_both is not None
    gone = api_keys.create_key(in_both.actor, project_b.id, "gone").key
    stays = api_keys.create_key(in_both.actor, "prj_default", "stays").key
    projects.set_member(admin, project_b.id, member.user_id, None)
    assert [key.id for key in api_keys.active_keys()] == [stays.id]
    assert api_keys.list_keys(admin, project_b.id)[0].id == gone.id
    assert api_keys.list_keys(admin, "prj_default")[0].made_by == "ana@example.org"


def _log_in_again(admin: Actor, user_id: str) -> str:
    email = accounts.get_user(admin, user_id).email
    return _log_in(email, accounts.reset_password(admin, user_id))


def test_a_session_ends_at_its_time(tenant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = _log_in()
    later = clock.now() + timedelta(hours=settings().session_hours)
    monkeypatch.setattr(clock, "now", lambda: later)
    assert accounts.logged_in(token) is None
    assert _log_in()


def test_another_tenants_users_do_not_exist(tenant: Path, admin: Actor) -> None:
    user_id = accounts.list_users(admin)[0].id
    stranger = Actor.system("ten_other")
    assert accounts.list_users(stranger) == []
    with pytest.raises(NotFound):
        accounts.reset_password(stranger, user_id)
    with pytest.raises(NotFound):
        accounts.set_user_enabled(stranger, user_id, False)


@pytest.mark.parametrize("email", ["", "ana", "a b@example.org", "@", "x" * 200 + "@example.org"])
def test_what_is_no_address_is_refused(tenant: Path, admin: Actor, email: str) -> None:
    with pytest.raises(InvalidInput, match="not an e-mail address"):
        accounts.add_user(admin, email)


@pytest.mark.parametrize("project_id", ["prj_none", "Default", ""])
def test_a_user_is_not_added_to_a_project_that_is_not_there(
    tenant: Path, admin: Actor, project_id: str
) -> None:
    with pytest.raises(NotFound, match=f"no project {project_id!r}"):
        accounts.add_user(admin, "ana@example.org", project_id=project_id)
    assert [user.email for user in accounts.list_users(admin)] == [EMAIL]


def test_the_operator_needs_no_name_in_passwd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1_000_770_000)
    assert accounts.operator().name == "uid 1000770000 (command line)"


def test_a_key_gets_other_restrictions_until_it_is_revoked(tenant: Path, admin: Actor) -> None:
    made = api_keys.create_key(
        admin, "prj_default", "ci", api_keys.Restrictions(scopes=["messages"])
    ).key
    assert (made.scopes, made.networks) == (["messages"], [])
    changed = api_keys.restrict_key(
        admin, made.id, api_keys.Restrictions(networks=["10.0.0.0/8", "::1"])
    )
    assert (changed.scopes, changed.networks) == ([], ["10.0.0.0/8", "::1/128"])
    (active,) = api_keys.active_keys()
    assert active.networks == ["10.0.0.0/8", "::1/128"]
    for wrong in (
        api_keys.Restrictions(scopes=["wishes"]),
        api_keys.Restrictions(networks=["10.0.0.1/8"]),
        api_keys.Restrictions(expires_at=clock.now()),
    ):
        with pytest.raises(InvalidInput):
            api_keys.restrict_key(admin, made.id, wrong)
    api_keys.revoke_key(admin, made.id)
    with pytest.raises(Conflict):
        api_keys.restrict_key(admin, made.id, api_keys.Restrictions())


def test_the_playgrounds_key_keeps_working(tenant: Path, admin: Actor) -> None:
    api_keys.playground_key(admin, "prj_default")
    (own,) = api_keys.list_keys(admin, "prj_default")
    with pytest.raises(Conflict, match="Bud itself"):
        api_keys.restrict_key(admin, own.id, api_keys.Restrictions(scopes=["models"]))
