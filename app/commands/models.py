"""`bud models`: what can be deployed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import (
    context,
    follow,
    hosted,
    licences,
    model_catalogue,
    model_refresh,
    model_versions,
    output,
)
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.model_versions import (
    ModelName,
    VersionNumber,
    deployed_as,
    find,
    versions_table,
)
from app.commands.output import Json, Yes

if TYPE_CHECKING:
    from core.registry.scanning import ScanReport
    from core.registry.schemas import ModelView, VersionView

group = typer.Typer(
    help="Models: list, search, compare, add, show, scan, serve, delete; versions and licences.",
    no_args_is_help=True,
)
group.command("license")(licences.show_licence)
group.command("search")(model_catalogue.search)
group.command("compare")(model_catalogue.compare)
group.command("sources")(model_refresh.sources)
group.command("refresh")(model_refresh.refresh)
group.command("undo")(model_refresh.undo)
group.command("versions")(model_versions.list_versions)
group.command("stage")(model_versions.set_stage)
group.command("override")(model_versions.override)
group.command("policy")(model_versions.policy)
group.command("serve")(hosted.serve)
group.command("served")(hosted.list_served)
group.command("withdraw")(hosted.withdraw)


@group.command("list")
def list_models(project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """List the models a project can use."""
    from core.registry import services as registry

    found = registry.list_models(context.operator(), context.project_id(project))
    output.show(
        found, _table(found, "No models yet. Add one: bud models add FILE"), as_json=as_json
    )


def _table(found: list[ModelView], empty: str) -> str:
    rows = [
        (
            *(model.name, model.state, formats.short_count(model.parameters)),
            *(model.quantization or formats.NONE, formats.size(model.size_bytes)),
            *(formats.tokens(model.context_tokens), ", ".join(model.capabilities)),
        )
        for model in found
    ]
    columns = ("name", "state", "parameters", "quantization", "size", "context", "can do")
    return output.table(columns, rows, empty=empty)


@group.command()
def add(
    source: Annotated[
        str,
        typer.Argument(
            help="A GGUF or safetensors file, a folder with a model, a Hugging Face owner/name, "
            "an https:// URL, s3://bucket/prefix, or with --provider a hosted model."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What to call it.")] = None,
    file: Annotated[
        str | None, typer.Option(help="Which file of the Hugging Face repository.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of the Hugging Face repository.")
    ] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="What the file at the URL must have.")
    ] = None,
    version_of: Annotated[
        str | None, typer.Option(help="The model that this is a new version of.")
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="The account at which the model is hosted.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait and show the steps.")] = True,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Add a model from this machine, Hugging Face, a URL, an object store or a provider."""
    from core.registry import providers
    from core.registry import services as registry

    actor, project_id = context.operator(), context.project_id(project)
    if provider is not None:
        account = providers.find_provider(actor, project_id, provider)
        model = registry.add_hosted(actor, account.id, source, name)
        output.show({"model": model, "job_id": None}, f"{model.name} is added.", as_json=as_json)
        return
    model_id = find(version_of, project).id if version_of is not None else None
    if source.startswith("s3://"):
        added = registry.add_from_object_store(actor, project_id, source, name, model_id=model_id)
    elif _is_hub_id(source) and not Path(source).expanduser().exists():
        added = registry.add_from_hub(
            actor, project_id, source, file, name, revision=revision, model_id=model_id
        )
    elif "://" in source:
        added = registry.add_from_url(
            actor, project_id, source, name, sha256=sha256, model_id=model_id
        )
    else:
        path = str(Path(source).expanduser().absolute())
        added = registry.add_local(actor, project_id, path, name, model_id=model_id)
    model, job_id = added
    if wait:
        follow.job(actor, job_id)
    model = registry.get_model(actor, model.id)
    output.show(
        {"model": model, "job_id": job_id},
        f"{model.name} is {model.state} (job {job_id}).",
        as_json=as_json,
    )


def _is_hub_id(source: str) -> bool:
    rest = source.removeprefix("https://huggingface.co/")
    looks_local = source.startswith((".", "/", "~")) or rest.endswith((".gguf", ".safetensors"))
    return not looks_local and "://" not in rest and rest.strip("/").count("/") == 1


@group.command("show")
def show_model(model: ModelName, project: Project = DEFAULT_PROJECT, as_json: Json = False) -> None:
    """Show what is known of a model of the project, or of the catalogue (owner/name)."""
    from core.registry import annotations, versions

    if "/" in model:
        model_catalogue.show_entry(model, as_json=as_json)
        return

    actor, found = context.operator(), find(model, project)
    subject = f"model:{found.id}"
    known = versions.list_versions(actor, found.id)
    tags = annotations.tags(actor, context.project_id(project)).get(subject, [])
    facts = found.model_dump(exclude={"extracted"}) | {"tags": tags}
    pairs = [(field.replace("_", " "), _said(value)) for field, value in facts.items()]
    notes = [f"Note: {note}" for note in found.extracted.get("notes") or ()]
    parts = [output.details(pairs), *notes, versions_table(known, deployed_as(known, project))]
    text = "\n\n".join(parts)
    whole = found.model_dump(mode="json") | {"tags": tags, "versions": output.plain(known)}
    output.show(whole, text, as_json=as_json)


def _said(value: object) -> object:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or formats.NONE
    return formats.NONE if value is None else value


@group.command()
def scan(
    target: Annotated[str, typer.Argument(help="A model, by name or id; or a file or folder.")],
    version: VersionNumber = None,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Scan a model of the registry again, or any file or folder, for what may do harm.

    The exit status is 1 when there is a critical finding.
    """
    from core.registry import scanning

    path = Path(target).expanduser()
    report: ScanReport | VersionView
    if path.exists():
        report = scanning.scan([path])
        state, reasons = report.state, list(report.reasons)
    else:
        report = _rescanned(target, version, project)
        state, reasons = report.scan_state, report.scan_reasons
    rows = [(found.severity, found.file, found.what) for found in report.findings]
    said = output.table(("severity", "file", "what"), rows, empty="Nothing was found.")
    why_not = "".join(f"\nNot scanned: {reason}" for reason in reasons)
    severity = report.severity or formats.NONE
    output.show(report, f"{said}\n\n{state}, severity: {severity}{why_not}", as_json=as_json)
    if report.severity == "critical":
        raise typer.Exit(1)


def _rescanned(name: str, number: int | None, project: str) -> VersionView:
    from core.registry import services as registry
    from core.registry import versions

    actor = context.operator()
    chosen = versions.find_version(actor, find(name, project).id, number)
    follow.job(actor, registry.scan(actor, chosen.id))
    return versions.get_version(actor, chosen.id)


@group.command("delete")
def delete_model(
    model: ModelName, yes: Yes = False, project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """Delete a model and Bud's copy of its files."""
    from core.registry import services as registry

    found = find(model, project)
    output.confirm(f"Delete model {found.name}?", yes=yes)
    registry.delete_model(context.operator(), found.id)
    output.show({"deleted": found.id}, f"{found.name} is deleted.", as_json=as_json)
