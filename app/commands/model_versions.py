"""`bud models versions|stage|override|policy`: which versions may be used, and who said so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json
from core.kernel.errors import InvalidInput

if TYPE_CHECKING:
    from core.registry.schemas import ModelView, VersionView

ModelName = Annotated[str, typer.Argument(help="Model, by name or id.", metavar="MODEL")]
VersionNumber = Annotated[int | None, typer.Option("--version", help="Default: the current one.")]


def find(name: str, project: str) -> ModelView:
    """A model of the project, by name or id."""
    from core.registry import services as registry

    return registry.find_model(context.operator(), context.project_id(project), name)


def deployed_as(known: list[VersionView], project: str) -> dict[str, list[str]]:
    """The names under which each version is deployed in a project."""
    from core.deployments import services as deployments

    names: dict[str, list[str]] = {version.id: [] for version in known}
    for view in deployments.list_deployments(context.operator(), context.project_id(project)):
        if view.model_version_id in names:
            names[view.model_version_id].append(view.name)
    return names


def versions_table(known: list[VersionView], deployed: Mapping[str, list[str]]) -> str:
    """The versions of a model, one a line, with the names they are deployed under."""
    rows = [
        (
            *(version.number, version.stage, version.state, version.severity or version.scan_state),
            *(formats.size(version.size_bytes), (version.revision or formats.NONE)[:12]),
            *(", ".join(deployed.get(version.id, [])) or formats.NONE,),
            *(formats.when(version.created_at), version.source),
        )
        for version in known
    ]
    columns = (
        "version",
        "stage",
        "state",
        "scan",
        "size",
        "revision",
        "deployed as",
        "added",
        "from",
    )
    return output.table(columns, rows, empty="No versions: it has no files here.")


def list_versions(
    model: ModelName, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """List a model's versions, where each is deployed, and what was in production when."""
    from core.registry import versions

    actor, found = context.operator(), find(model, project)
    known = versions.list_versions(actor, found.id)
    deployed = deployed_as(known, project)
    periods = versions.production_history(actor, found.id)
    rows = [
        (period.version_number, formats.when(period.start), formats.when(period.end))
        for period in periods
    ]
    columns = ("in production", "from", "until")
    history = output.table(columns, rows, empty="None was in production yet.")
    output.show(
        {"versions": known, "production": periods, "deployed": deployed},
        f"{versions_table(known, deployed)}\n\n{history}",
        as_json=as_json,
    )


def set_stage(
    model: ModelName,
    to: Annotated[str, typer.Argument(help="draft, approved, production or retired.")],
    version: VersionNumber = None,
    comment: Annotated[str, typer.Option(help="Why; needed for an approval.")] = "",
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Bring a version to a stage; the one in production before goes back to approved."""
    from core.registry import versions
    from core.registry.schemas import STAGES

    if to not in STAGES:
        raise InvalidInput(f"There is no stage {to!r}.", remedy=f"There are: {', '.join(STAGES)}.")
    actor = context.operator()
    chosen = versions.find_version(actor, find(model, project).id, version)
    changed = versions.set_stage(actor, chosen.id, to, comment)
    output.show(changed, f"{model}, version {changed.number}: {changed.stage}.", as_json=as_json)


def override(
    model: ModelName,
    reason: Annotated[str, typer.Option(help="Why the findings are acceptable here.")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take it back.")] = False,
    version: VersionNumber = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Let a version be deployed that its security scan forbids."""
    from core.registry import versions

    actor = context.operator()
    chosen = versions.find_version(actor, find(model, project).id, version)
    if withdraw:
        changed = versions.withdraw_override(actor, chosen.id)
    else:
        changed = versions.override_scan(actor, chosen.id, reason)
    said = "is withdrawn" if withdraw else f"by {changed.override_by_name}"
    output.show(changed, f"{model}, version {changed.number}: override {said}.", as_json=as_json)


def policy(
    approved_only: Annotated[
        bool | None, typer.Option(help="Deploy approved versions only.")
    ] = None,
    block_unscanned: Annotated[
        bool | None, typer.Option(help="Deploy scanned versions only.")
    ] = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show or set which versions a project may deploy."""
    from core.registry import versions

    actor, project_id = context.operator(), context.project_id(project)
    if approved_only is None and block_unscanned is None:
        rules = versions.policy(actor, project_id)
    else:
        rules = versions.set_policy(
            actor, project_id, approved_only=approved_only, block_unscanned=block_unscanned
        )
    pairs = [
        ("approved versions only", "yes" if rules.approved_only else "no"),
        ("scanned versions only", "yes" if rules.block_unscanned else "no"),
    ]
    output.show(rules, output.details(pairs), as_json=as_json)
