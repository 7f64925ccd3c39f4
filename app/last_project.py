"""Where somebody is who does not say which project they want: in the one they looked at last."""

from __future__ import annotations

from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers
from starlette.types import Scope

from core.accounts.schemas import LoggedIn
from core.projects import services as projects
from core.projects.schemas import ProjectView

NAME = "project"


def of(known: list[ProjectView], last_project_id: str | None) -> ProjectView:
    """The project that was looked at last, else the first one, which is the default."""
    return next((project for project in known if project.id == last_project_id), known[0])


def named_address(scope: Scope, who: LoggedIn) -> str | None:
    """Where a request for a page leads that names no project; None where it stays.

    An address that names its project shows the same to everybody it is sent to. The page itself
    cannot add the name: the browser would keep the address without it as a view to go back to.
    """
    query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    if not _is_page(scope) or NAME in dict(query):
        return None
    known = projects.list_projects(who.actor)
    if len(known) < 2:
        return None
    query.append((NAME, of(known, who.user.last_project_id).name))
    return f"{quote(scope['path'])}?{urlencode(query)}"


def _is_page(scope: Scope) -> bool:
    asks_for_page = "text/html" in Headers(scope=scope).get("accept", "")
    return asks_for_page and scope["method"] == "GET" and scope["path"].count("/") == 1
