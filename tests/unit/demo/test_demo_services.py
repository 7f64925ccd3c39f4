"""The demo project: believable, the same each time, and gone without a trace."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from core import jobs
from core.accounts import api_keys
from core.accounts import services as accounts
from core.contracts.request_fact import FOLDER_NAME
from core.demo import services as demo
from core.demo import traffic
from core.deployments import services as deployments
from core.deployments.models import Deployment
from core.jobs.models import Job, JobStep
from core.kernel import database, keys
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, PermissionDenied
from core.kernel.settings import settings
from core.metrics import services as metrics
from core.metrics.schemas import Filters, Window
from core.playground import services as playground
from core.playground.models import ChatMessage, ChatSession, Vote
from core.prices import services as prices
from core.projects import services as projects
from tests.machine import slowness

END = datetime(2026, 11, 20, 15, 30, tzinfo=UTC)
KEYS = {caller.key: f"key_{caller.key}" for caller in traffic.CALLERS}


@pytest.fixture
def installed(data_dir: Path) -> Path:
    accounts.bootstrap("admin@example.org", None)
    projects.bootstrap()
    return data_dir


@pytest.fixture(scope="module")
def _loaded_folder(
    tmp_path_factory: pytest.TempPathFactory, _made_keys: Path, _migrated_database: Path
) -> Path:
    """A data folder with the demo in it."""
    folder = tmp_path_factory.mktemp("demo") / "bud"
    shutil.copytree(_made_keys, folder / "keys")
    shutil.copy(_migrated_database, folder / "bud.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUD_DATA_DIR", str(folder))
        _forget()
        accounts.bootstrap("admin@example.org", None)
        projects.bootstrap()
        demo.load(Actor.system())
    _forget()
    return folder


def _forget() -> None:
    database.dispose()
    settings.cache_clear()
    keys.keyring.cache_clear()


@pytest.fixture
def loaded(_loaded_folder: Path, data_dir: Path, admin: Actor) -> str:
    """The project of a demo that was loaded into the data folder."""
    shutil.copytree(_loaded_folder, data_dir, dirs_exist_ok=True)
    return demo.load(admin).project_id


def test_traffic_is_the_same_each_time() -> None:
    first = list(traffic.requests(END, "prj_d", KEYS))
    again = list(traffic.requests(END, "prj_d", KEYS))
    assert first == again
    assert 45_000 < len(first) < 80_000
    times = [fact.started_unix_s for fact in first]
    assert times == sorted(times)
    assert times[0] >= (END - timedelta(days=30)).timestamp()
    assert times[-1] < END.timestamp()


def test_traffic_has_weekends_growth_nights_and_incidents() -> None:
    facts = list(traffic.requests(END, "prj_d", KEYS))
    by_day: dict[int, int] = {}
    for fact in facts:
        day = int((fact.started_unix_s - END.timestamp()) // 86400)
        by_day[day] = by_day.get(day, 0) + 1
    # 20 November 2026 is a Friday: day -6 is the Saturday 14:30 to Sunday 14:30 before.
    assert by_day[-6] < 0.6 * by_day[-4]
    assert by_day[-3] > 1.2 * by_day[-24]
    nightly = [fact for fact in facts if fact.key_id == "key_nightly-reports"]
    assert {datetime.fromtimestamp(fact.started_unix_s, UTC).hour for fact in nightly} == {1, 2}
    broke = [fact for fact in facts if fact.error_class == "upstream_broke"]
    assert len(broke) > 10
    assert {fact.model for fact in broke} == {"code-assist"}
    assert 0.003 < sum(fact.error_class != "" for fact in facts) / len(facts) < 0.03


def test_load_then_remove_leaves_no_trace(installed: Path, admin: Actor) -> None:
    started_s = time.process_time()
    made = demo.load(admin)
    assert time.process_time() - started_s < 10 * slowness()
    assert made.requests > 45_000
    assert (made.users, made.keys, made.deployments) == (4, 5, 4)
    assert demo.is_loaded(admin)

    month = Window.preset("30d")
    summary = metrics.summary(admin, made.project_id, month)
    assert summary.requests == pytest.approx(made.requests, abs=20)
    assert summary.cost_usd is not None
    assert summary.cost_usd > 1
    assert summary.unpriced_requests == 0
    labels = {row.label.split(" …")[0] for row in metrics.top(
        admin, made.project_id, month, group_by="key")}  # fmt: skip
    assert labels == {f"{caller.key} (demo)" for caller in traffic.CALLERS}
    # Made-up work must not make the real machine look busy, nor a real project's numbers grow.
    assert metrics.costs(admin, made.project_id, month).machines == []
    assert metrics.summary(admin, "prj_default", month).requests == 0

    assert demo.load(admin) == made  # a second load finds it

    gone = demo.remove(admin)
    assert gone == made
    with database.reading() as session:
        for table in (Deployment, Job, JobStep, ChatSession, ChatMessage, Vote):
            assert session.scalars(select(table)).all() == []
    assert not demo.is_loaded(admin)
    assert metrics.summary(admin, made.project_id, month).requests == 0
    assert api_keys.list_keys(admin, made.project_id) == []
    assert prices.token_price_history(admin, made.project_id) == []
    assert [user.email for user in accounts.list_users(admin)] == ["admin@example.org"]
    assert [project.name for project in projects.list_projects(admin)] == ["Default"]
    assert list((settings().data_dir / FOLDER_NAME).glob("*")) == []
    assert demo.remove(admin).requests == 0


def test_every_page_has_something_to_look_at(loaded: str, admin: Actor) -> None:
    project_id = loaded
    views = deployments.list_deployments(admin, project_id)
    assert {view.id for view in views} == {model.deployment_id for model in traffic.MODELS}
    assert all(view.demo and view.state == "stopped" for view in views)
    assert {view.task for view in views} == {"chat", "embedding"}

    history = jobs.list_jobs(admin, project_id)
    assert sorted(job.state for job in history) == ["failed", *["succeeded"] * 4]
    failed = next(job for job in history if job.state == "failed")
    assert failed.error
    assert failed.remedy
    assert [step.state for step in failed.steps] == ["failed", *["pending"] * 4]

    owner = next(user for user in accounts.list_users(admin) if user.role == "admin")
    person = Actor(owner.id, owner.email, admin.tenant_id, "admin")
    (chat,) = playground.list_sessions(person, project_id)
    (turn,) = playground.get_session(person, chat.id).turns
    assert [answer.model for answer in turn.answers] == ["support-chat", "report-writer"]
    assert turn.vote == "a"


def test_made_up_jobs_teach_no_estimate(loaded: str) -> None:
    with database.reading() as session:
        steps = session.scalars(select(JobStep.kind)).all()
    assert set(steps) == {"demo"}


def test_a_demo_deployment_that_was_started_keeps_the_demo(loaded: str, admin: Actor) -> None:
    chat = deployments.find_deployment(admin, loaded, "support-chat")
    deployments.start(admin, chat.id)
    with pytest.raises(Conflict, match="run or are your own") as refused:
        demo.remove(admin)
    assert refused.value.value == "support-chat"
    assert demo.is_loaded(admin)
    deployments.stop(admin, chat.id)
    demo.remove(admin)
    assert not demo.is_loaded(admin)


def test_a_half_loaded_demo_is_made_anew(installed: Path, admin: Actor) -> None:
    half = projects.create_project(admin, demo.PROJECT_NAME, demo=True)
    accounts.add_user(admin, "ines@demo.example", "Inés", "member", half.id, demo=True)
    made = demo.load(admin)
    assert made.project_id != half.id
    assert made.users == 4
    assert metrics.summary(
        admin, made.project_id, Window.preset("30d"), Filters(outcome="unanswered")
    ).requests


def test_real_users_in_the_demo_project_stay(installed: Path, admin: Actor) -> None:
    project = projects.create_project(admin, demo.PROJECT_NAME, demo=True)
    accounts.add_user(admin, "real@example.org", "Real", "member", project.id)
    demo.remove(admin)
    found = {user.email: user for user in accounts.list_users(admin)}
    assert set(found) == {"admin@example.org", "real@example.org"}
    assert found["real@example.org"].projects == {}


def test_a_project_of_ones_own_named_demo_is_left_alone(installed: Path, admin: Actor) -> None:
    projects.create_project(admin, "Demo")
    with pytest.raises(Conflict):
        demo.load(admin)
    assert demo.remove(admin).project_id == ""
    assert "Demo" in [project.name for project in projects.list_projects(admin)]


def test_only_admins_load_and_remove(installed: Path) -> None:
    member = Actor("usr_m", "m@example.org", "ten_default", "member", {"prj_default": "admin"})
    for call in (demo.load, demo.remove):
        with pytest.raises(PermissionDenied):
            call(member)
