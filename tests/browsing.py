"""A dashboard and its gateway as processes, and what page tests do with a browser tab."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from playwright.sync_api import Browser, Locator, Page, Playwright, expect
from playwright.sync_api import Error as PlaywrightError
from sqlalchemy import update

from app import testing
from app.guard import SESSION_COOKIE
from core.accounts import services as accounts
from core.accounts.models import User
from core.kernel import database
from core.kernel.actor import Actor
from core.kernel.crypto import Secret

ROOT = Path(__file__).resolve().parents[1]
EMAIL = "admin@bud.local"
PASSWORD = "correct-horse-battery"
START_TIMEOUT_S = 180.0
# Pages wait for a machine that other tests keep busy as well.
PAGE_TIMEOUT_MS = 90_000
# How long to wait for what a click leads to before it is taken as lost, by attempt. A second
# click on a row takes its choice back, so there the first one is given long.
_LOST_CLICKS_MS = (1_000, 2_000, 4_000, 8_000, 16_000)
_LOST_ROW_CLICKS_MS = (8_000, 8_000, 8_000)
_BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def free_port() -> int:
    """A TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, check: Callable[[], object], timeout_s: float = 90.0) -> float:
    """Wait until `check()` is true; the seconds it took. Fails with `what` otherwise."""
    started = time.monotonic()
    while time.monotonic() - started < timeout_s:
        asked = time.monotonic()
        if check():
            return time.monotonic() - started
        # What is waited for needs the processor more than a check that takes long.
        time.sleep(max(0.05, time.monotonic() - asked))
    raise AssertionError(f"after {timeout_s:.0f} s still not: {what}")


def answers(url: str) -> bool:
    """Whether `url` answers 200 now."""
    try:
        # Plain HTTP: reading all certificates would take ten times as long, at each question.
        return httpx.get(url, timeout=2, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def launch(playwright: Playwright, *more: str) -> Browser:
    """A browser that is installed, else playwright's own; its error where neither is.

    Args:
        playwright: What starts it.
        more: Arguments for it, beside the usual ones.
    """
    installed = testing.installed_browser() or None
    return playwright.chromium.launch(executable_path=installed, args=[*_BROWSER_ARGUMENTS, *more])


@dataclass
class Bud:
    """A dashboard and its gateway on a data folder of their own."""

    data_dir: Path
    app_port: int = field(default_factory=free_port)
    gateway_port: int = field(default_factory=free_port)
    actor: Actor = field(default_factory=Actor.system)
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """The dashboard."""
        return f"http://127.0.0.1:{self.app_port}"

    @property
    def gateway_url(self) -> str:
        """The gateway, without `/v1`."""
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process belong to this Bud."""
        return {
            "BUD_DATA_DIR": str(self.data_dir),
            "BUD_APP_PORT": str(self.app_port),
            "BUD_GATEWAY_PORT": str(self.gateway_port),
            "BUD_ADMIN_PASSWORD": PASSWORD,
            "BUD_MODEL_SERVER_MODULE": "tests.doubles.model_server",
        }

    def set_up(self) -> None:
        """What `bud up` does first."""
        subprocess.run(
            [sys.executable, "-m", "app.setup"],
            cwd=ROOT,
            env=os.environ | self.environment,
            check=True,
            timeout=120,
        )

    def start_app(self) -> None:
        """Start the dashboard and wait until it answers."""
        self._start("app", "-m", "app.serve")
        self._wait("app", f"{self.url}/healthz")

    def start_gateway(self) -> None:
        """Start the gateway and wait until it answers."""
        arguments = ["--host", "127.0.0.1", "--port", str(self.gateway_port)]
        arguments += ["--data-dir", str(self.data_dir), "--keys-dir", str(self.data_dir / "keys")]
        self._start("gateway", "-m", "gateway", *arguments)
        self._wait("gateway", f"{self.gateway_url}/health")

    def _start(self, name: str, *command: str) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=os.environ | self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _wait(self, name: str, url: str) -> None:
        def ready() -> bool:
            log = self._log(name)
            assert self._processes[name].poll() is None, log.read_text(errors="replace")[-4000:]
            return answers(url)

        wait_for(f"the {name} answers", ready, START_TIMEOUT_S)

    def _log(self, name: str) -> Path:
        return self.data_dir.parent / f"{name}.log"

    def pid(self, name: str) -> int:
        """The process that was started as `name`."""
        return self._processes[name].pid

    def stop(self, name: str) -> None:
        """Stop one process; kill it when it does not end by itself."""
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)

    def log_in(self, page: Page, email: str = EMAIL, password: str = PASSWORD) -> None:
        """Fill in the log-in form as a person does; ends on the page behind it."""
        page.goto(f"{self.url}/auth/login")
        page.get_by_label("E-mail").fill(email)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Log in").click()

    def log_in_as_admin(self, page: Page) -> None:
        """Give the tab a session of the admin's, without a last project. Quicker than the form."""
        with database.transaction() as tx:
            tx.execute(update(User).values(last_project_id=None))
        self._give_session(page, EMAIL, Secret(PASSWORD))

    def log_in_as_new(self, page: Page, email: str, project_id: str = "prj_default") -> str:
        """Add a member and give the tab their session; their id."""
        new = accounts.add_user(self.actor, email, project_id=project_id)
        with database.transaction() as tx:
            row = tx.get(User, new.user.id)
            assert row is not None
            row.must_change_password = False
        self._give_session(page, email, new.one_time_password)
        return new.user.id

    def _give_session(self, page: Page, email: str, password: Secret) -> None:
        token = accounts.log_in(email, password, "test").token.reveal()
        page.context.add_cookies([{"name": SESSION_COOKIE, "value": token, "url": self.url}])

    def open(self, page: Page, path: str) -> None:
        """Open a page of the dashboard and wait until it has run."""
        page.goto(f"{self.url}/{path.lstrip('/')}")
        settle(page)


def settle(page: Page) -> None:
    """Wait until the script of the page has run, without an error."""
    expect(page.get_by_test_id("stMainBlockContainer")).to_be_visible(timeout=PAGE_TIMEOUT_MS)
    finished = page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')
    expect(finished).to_be_visible(timeout=PAGE_TIMEOUT_MS)
    assert page.get_by_test_id("stException").count() == 0, page.inner_text("body")[:4000]


def select_row(page: Page, row: int, shown: Locator, *, column_px: int = 60) -> None:
    """Click the row of the page's first table until `shown`, what its choice leads to, is there.

    The table is a canvas, so a row is found by its height of 35 px.
    """
    rows = page.get_by_test_id("stDataFrame").first.locator(".dvn-scroller")
    # A click while the table is drawn anew is lost; what was chosen may come late.
    for wait_ms in _LOST_ROW_CLICKS_MS:
        expect(rows.or_(shown).first).to_be_visible(timeout=PAGE_TIMEOUT_MS)
        if shown.is_visible():
            return
        try:
            rows.click(position={"x": column_px, "y": 35 * row + 52}, timeout=wait_ms)
            shown.wait_for(timeout=wait_ms)
        except PlaywrightError:
            continue
        return
    raise AssertionError(f"row {row} cannot be selected")


def choose(page: Page, label: str, option: str) -> None:
    """Choose an option of a list box."""
    wanted = page.get_by_role("option", name=option)
    # A list that opens while the card around it still unfolds closes at once, or a moment later.
    for wait_ms in _LOST_CLICKS_MS:
        page.get_by_role("combobox", name=label).click()
        try:
            wanted.click(timeout=wait_ms)
        except PlaywrightError:
            continue
        return
    raise AssertionError(f"{option!r} cannot be chosen as {label}")


def shot(page: Page, name: str) -> Path:
    """Save what the browser shows as screenshots/<name>.png."""
    path = ROOT / "screenshots" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    page.screenshot(path=path)
    return path


def looks(page: Page, name: str) -> None:
    """Save what the browser shows, light and dark, as screenshots/<name>-<width>-<look>.png.

    Nothing may be wider than the screen.
    """
    assert page.viewport_size is not None
    width = page.viewport_size["width"]
    # Inputs and tables come after the script has run; a picture of their places shows nothing.
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0, timeout=PAGE_TIMEOUT_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for look in ("light", "dark"):
        page.emulate_media(color_scheme=look)
        # Charts are drawn anew in the other colours.
        page.wait_for_timeout(300)
        shot(page, f"{name}-{width}-{look}")


def to_configuration(page: Page) -> None:
    """Through the deploy wizard with the starter model, up to the step of its configuration."""
    page.get_by_text("SmolLM2-135M-Instruct", exact=False).first.click()
    for step in ("Targets", "Options"):
        page.get_by_role("button", name="Next").click()
        expect(page.get_by_role("heading", name=step, exact=True)).to_be_visible()
    page.get_by_role("button", name="Choose", exact=True).first.click()
    expect(page.get_by_role("heading", name="Configuration", exact=True)).to_be_visible()
    settle(page)
