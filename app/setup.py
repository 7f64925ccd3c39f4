"""Prepares a data folder: `python -m app.setup [--demo]`, run by the supervisor before the rest.

Safe to run each time; after the first time it only looks.
"""

from __future__ import annotations

import re
import sys

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from core.accounts import services as accounts
from core.kernel import database
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import BudError
from core.kernel.keys import keyring
from core.kernel.settings import settings
from core.projects import services as projects
from core.registry import services as registry


def main() -> int:
    """Prepare; the exit status."""
    try:
        _prepare("--demo" in sys.argv)
    except BudError as error:
        print(f"✗ {error}", file=sys.stderr)  # noqa: T201 (this is a command)
        return error.exit_code
    return 0


def _prepare(demo: bool) -> None:
    settings().data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    keyring()
    if _revision() != _newest_revision():
        database.migrate()
    given = settings().admin_password
    made = accounts.bootstrap(
        settings().admin_email, Secret(given.get_secret_value()) if given else None
    )
    projects.bootstrap()
    registry.add_starter(Actor.system())
    if demo:
        from core.demo import services as demo_data

        demo_data.load(Actor.system())
    if made.is_new:
        _show_log_in(made.email, made.one_time_password)


def _revision() -> str | None:
    """The schema's revision, read without Alembic, which costs 1.4 s of CPU to import."""
    try:
        with database.reading() as session:
            found = session.scalar(text("SELECT version_num FROM alembic_version"))
            return None if found is None else str(found)
    except SQLAlchemyError:
        return None


def _newest_revision() -> str:
    names = [path.name for path in (database.MIGRATIONS / "versions").glob("*.py")]
    return max(found.group() for name in names if (found := re.match(r"\d+", name)))


def _show_log_in(email: str, one_time: Secret | None) -> None:
    lines = ["Log in with", f"  e-mail             {email}"]
    if one_time is None:
        lines.append("  password           the one in BUD_ADMIN_PASSWORD")
    else:
        lines += [
            f"  one-time password  {one_time.reveal()}",
            "It is shown this once, and must be changed at the first log-in.",
        ]
    lines.append("Lost it? ./bud users reset " + email)
    width = max(len(line) for line in lines)
    print("┌" + "─" * (width + 2) + "┐")  # noqa: T201 (this is a command)
    for line in lines:
        print(f"│ {line:<{width}} │")  # noqa: T201
    print("└" + "─" * (width + 2) + "┘", flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
