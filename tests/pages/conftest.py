"""A running dashboard with its gateway, and a real browser to look at it.

    def test_something(page: Page, bud: Bud) -> None:      # nobody is logged in
    def test_something(admin_page: Page, bud: Bud) -> None:  # the admin is

`bud` lives as long as the test run, so a file makes what it needs under names of its own;
services called in a test work on the dashboard's data folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from core.deployments import server_records
from core.deployments import services as deployments
from core.deployments.models import Deployment
from core.deployments.schemas import DeploymentRequest, DeploymentView
from core.kernel import database, ids, keys
from core.kernel.settings import settings
from core.projects import services as projects
from core.registry import services as registry
from tests.browsing import PAGE_TIMEOUT_MS, Bud, launch, wait_for

# A test's page is gone before its code pays for being optimised: a sixth of the page's CPU.
_UNOPTIMISED = "--js-flags=--no-opt --no-maglev"


@pytest.fixture(scope="session")
def bud(
    tmp_path_factory: pytest.TempPathFactory, _made_keys: Path, _migrated_database: Path
) -> Iterator[Bud]:
    """A running dashboard and gateway; `app.setup` has made the admin and the starter model."""
    made = Bud(tmp_path_factory.mktemp("pages") / "bud")
    made.data_dir.mkdir()
    shutil.copytree(_made_keys, made.data_dir / "keys")
    shutil.copy(_migrated_database, made.data_dir / "bud.db")
    try:
        made.set_up()
        made.start_gateway()
        made.start_app()
        yield made
    finally:
        made.stop("app")
        made.stop("gateway")
        server_records.stop_all(made.data_dir)


@pytest.fixture(autouse=True)
def _services_see_it(
    bud: Bud, monkeypatch: pytest.MonkeyPatch, quick_passwords: None
) -> Iterator[None]:
    """Services that the test itself calls work on the dashboard's data folder."""
    for name, value in bud.environment.items():
        monkeypatch.setenv(name, value)
    _forget()
    yield
    _forget()


def _forget() -> None:
    database.dispose()
    settings.cache_clear()
    keys.keyring.cache_clear()


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """See `tests.browsing.launch`.

    Not the session's: playwright's event loop would get in the way of the asynchronous tests of
    other folders.
    """
    with sync_playwright() as playwright:
        launched = _launch(playwright)
        yield launched
        launched.close()


@pytest.fixture(scope="package")
def shared_tab(browser: Browser) -> Page:
    """The tab of most tests: what it has loaded and compiled of the dashboard serves the next."""
    return _window(browser).new_page()


def _launch(playwright: Playwright) -> Browser:
    try:
        return launch(playwright, _UNOPTIMISED)
    except PlaywrightError as error:
        if "Executable doesn't exist" in str(error):
            pytest.skip("no browser")
        raise


def _window(browser: Browser) -> BrowserContext:
    context = browser.new_context(
        viewport={"width": 1440, "height": 900},
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(PAGE_TIMEOUT_MS)
    return context


Tab = Callable[..., Page]


@pytest.fixture
def tab(browser: Browser, shared_tab: Page, bud: Bud) -> Iterator[Tab]:
    """Opens empty tabs: `tab(width=390)`; nobody is logged in.

    The first one is the shared tab; each further one has a window, with cookies, of its own.
    """
    opened: list[Page] = []

    def make(width: int = 1440, *, dark: bool = False) -> Page:
        page = _window(browser).new_page() if opened else shared_tab
        opened.append(page)
        page.set_viewport_size({"width": width, "height": 900 if width > 640 else 844})
        page.emulate_media(color_scheme="dark" if dark else "light")
        return page

    yield make
    for page in opened[1:]:
        page.context.close()
    _empty(shared_tab, bud)


def _empty(tab: Page, bud: Bud) -> None:
    window = tab.context
    for page in window.pages:
        if page != tab:
            page.close()
    window.clear_cookies()
    window.set_offline(False)
    # A page without a script, of the dashboard's: another site's would have another process.
    tab.goto(f"{bud.url}/healthz")
    tab.evaluate("localStorage.clear(), sessionStorage.clear()")


@pytest.fixture
def page(tab: Tab) -> Page:
    """An empty tab; nobody is logged in."""
    return tab()


@pytest.fixture
def member_page(page: Page, bud: Bud, project_id: str) -> Page:
    """A tab of a member whose only project is the test file's own: see `project_id`."""
    bud.log_in_as_new(page, f"ana-{ids.new_id('')[-6:]}@example.org", project_id)
    return page


@pytest.fixture
def project_id(bud: Bud, request: pytest.FixtureRequest) -> str:
    """A project of the test file's own, so that others' deployments and requests are not in it."""
    name = request.path.stem
    known = {project.name: project.id for project in projects.list_projects(bud.actor)}
    return known.get(name) or projects.create_project(bud.actor, name).id


Running = Callable[..., DeploymentView]


@pytest.fixture
def running(bud: Bud, project_id: str) -> Running:
    """Makes deployments of the model server's double that answer: `running("a", replicas=2)`.

    Without their job, whose first step takes seconds; one of that name that exists is given back.
    """

    def make(name: str, replicas: int = 1) -> DeploymentView:
        known = [view for view in _deployments(bud, project_id) if view.name == name]
        deployment_id = known[0].id if known else _deploy(bud, project_id, name, replicas)
        wait_for(f"{name} answers", lambda: _get(bud, deployment_id).state == "ready")
        return _get(bud, deployment_id)

    return make


def _deployments(bud: Bud, project_id: str) -> list[DeploymentView]:
    return deployments.list_deployments(bud.actor, project_id)


def _get(bud: Bud, deployment_id: str) -> DeploymentView:
    return deployments.get_deployment(bud.actor, deployment_id)


def _deploy(bud: Bud, project_id: str, name: str, replicas: int) -> str:
    wanted = DeploymentRequest(
        project_id=project_id,
        name=name,
        model_id=registry.add_starter(bud.actor).id,
        context_tokens=256,
        slots=1,
        threads=1,
        replicas=replicas,
    )
    with mock.patch.object(deployments, "_bring_up"):
        made = deployments.deploy(bud.actor, wanted)
    with database.transaction() as tx:
        row = tx.get(Deployment, made.id)
        assert row is not None
        row.desired_state = "running"
    return made.id


@pytest.fixture
def admin_page(page: Page, bud: Bud) -> Page:
    """A tab in which the admin is logged in."""
    bud.log_in_as_admin(page)
    return page
