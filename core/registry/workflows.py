"""Jobs of the registry: adding a version of a model, step by step, and scanning one again.

The files of a version that is being added lie in `<data folder>/models/<version id>`; each step
can run again, and a download goes on after the bytes that are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from core.jobs import Progress, Run, Step, workflow
from core.kernel import audit, clock, database, events
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, UpstreamFailed
from core.registry import artifacts, crud, extraction, files, scanning, sources, versions
from core.registry.models import Model, ModelVersion
from core.registry.scanning import ScanReport
from core.registry.schemas import FileView
from core.registry.sources import Plan, Source


def _discard(model_id: str, version_id: str, **_arguments: Any) -> None:
    """Forget a version that was being added, with its files; and its model, if it was the first."""
    with database.transaction() as tx:
        model, version = crud.model(tx, model_id), crud.version(tx, version_id)
        if version is not None:
            tx.delete(version)
            tx.flush()
        if model is not None and not crud.versions(tx, model_id):
            tx.delete(model)
        elif model is not None:
            versions.settle(tx, model)
    # Last: where the store cannot be reached, at least nothing points to what it still has.
    artifacts.remove(version_id, version.artifact_uri if version is not None else None)


@workflow(
    "model.add",
    steps=(
        Step("validate", "Check the source", typical_s=1),
        Step("download", "Fetch the files", typical_s=20),
        Step("extract", "Read what the files say", typical_s=0.5),
        Step("scan", "Scan for danger", typical_s=3),
        Step("save", "Save", typical_s=0.5),
    ),
    on_cancel=_discard,
)
def add(
    run: Run,
    model_id: str,
    version_id: str,
    registration: dict[str, Any],
    source: dict[str, Any],
) -> None:
    """Add a version of a model from a source."""
    with _adding(model_id, version_id, registration):
        plan = run.step("validate", _validate, version_id, source)
        fetched = run.step("download", _download, version_id, source, plan)
        facts = run.step("extract", _extract, version_id, fetched)
        scanned = run.step("scan", _scan, version_id, fetched)
        run.step("save", _save, version_id, plan, fetched, facts, scanned)


@workflow(
    "model.scan",
    steps=(
        Step("fetch", "Fetch the files", typical_s=0.5),
        Step("scan", "Scan for danger", typical_s=3),
        Step("save", "Save the report", typical_s=0.5),
    ),
)
def scan(run: Run, version_id: str) -> None:
    """Scan a version's files again."""
    fetched = run.step("fetch", _fetch_kept, version_id)
    scanned = run.step("scan", _scan, version_id, fetched)
    run.step("save", _save_report, version_id, scanned)


@contextmanager
def _adding(model_id: str, version_id: str, registration: dict[str, Any]) -> Iterator[None]:
    """Keep the version's row true: there while its job works, with the reason when it fails."""
    with database.transaction() as tx:
        version = crud.version(tx, version_id)
        if version is None:
            # The job before this one was cancelled, or the failed version deleted.
            register(tx, model_id, version_id, registration)
        elif version.state == "failed":
            _set_state(tx, version, "adding", None)
    try:
        yield
    except BudError as error:
        with database.transaction() as tx:
            version = crud.version(tx, version_id)
            if version is not None:
                _set_state(tx, version, "failed", str(error))
        raise


def _set_state(tx: Session, version: ModelVersion, state: str, error: str | None) -> None:
    version.state, version.error = state, error
    tx.flush()
    model = crud.model(tx, version.model_id)
    if model is not None:
        versions.settle(tx, model)


def register(
    tx: Session, model_id: str, version_id: str, registration: dict[str, Any]
) -> tuple[Model, ModelVersion]:
    """Make the rows of a version that is to be added, and of its model if there is none yet.

    Args:
        tx: A transaction.
        model_id: The model.
        version_id: The version.
        registration: `tenant_id`, `project_id`, `name`, `source`, `created_by_name`; also
            `catalogue_id`.
    """
    model = crud.model(tx, model_id)
    if model is None:
        model = Model(
            id=model_id,
            tenant_id=registration["tenant_id"],
            project_id=registration["project_id"],
            name=registration["name"],
            kind="local",
            state="adding",
            source=registration["source"],
            catalogue_id=registration.get("catalogue_id"),
            managed=True,
            capabilities=[],
            extracted={},
            created_at=clock.now(),
        )
        tx.add(model)
        tx.flush()
    version = ModelVersion(
        id=version_id,
        tenant_id=model.tenant_id,
        project_id=model.project_id,
        model_id=model_id,
        number=crud.next_number(tx, model_id),
        state="adding",
        source=registration["source"],
        managed=True,
        capabilities=[],
        extracted={},
        files=[],
        findings=[],
        scan_reasons=[],
        stage="draft",
        scan_state="not scanned",
        created_by_name=registration["created_by_name"],
        created_at=clock.now(),
    )
    tx.add(version)
    tx.flush()
    versions.settle(tx, model)
    return model, version


def _validate(progress: Progress, version_id: str, source: dict[str, Any]) -> dict[str, Any]:
    asked = Source(**source)
    with files.disk_errors():
        plan = sources.plan(progress, asked)
    progress.update(1, plan.said)
    _begin_anew_if_changed(version_id, plan)
    if asked.kind == "file" and plan.files[0].name.lower().endswith(".gguf"):
        # Before gigabytes are copied: a GGUF file says all in its header.
        parts = [Path(file.at) for file in plan.files]
        extraction.describe([part for part in parts if part.suffix.lower() == ".gguf"])
    files.check_disk(plan.size_bytes, files.folder_of(version_id))
    _refuse_known(progress, version_id, asked, plan)
    return plan.to_json()


def _begin_anew_if_changed(version_id: str, plan: Plan) -> None:
    """Throw away what an earlier try fetched of another state of the source."""
    with database.transaction() as tx:
        version = crud.version(tx, version_id)
        if version is None or version.revision == plan.revision:
            return
        version.revision = plan.revision
    files.remove(version_id)


def _refuse_known(progress: Progress, version_id: str, source: Source, plan: Plan) -> None:
    """Refuse what the project has already, where that can be known before fetching it."""
    counted = [file for file in plan.files if not files.is_document(file.name)]
    if len(counted) == 1 and counted[0].sha256 is not None:
        _refuse_twin(version_id, counted[0].sha256)
    if source.kind == "file" and _may_be_known(version_id, plan.size_bytes):
        # Reading it once is cheaper than copying it for nothing.
        rate = files.Rate(progress, plan.size_bytes)
        with files.disk_errors():
            found = [
                FileView(
                    name=file.name,
                    size_bytes=file.size_bytes or 0,
                    sha256=files.sha256(Path(file.at), rate.add),
                )
                for file in plan.files
            ]
        _refuse_twin(version_id, files.model_sha256(found))


def _download(
    progress: Progress, version_id: str, source: dict[str, Any], plan: dict[str, Any]
) -> list[dict[str, Any]]:
    folder = files.folder_of(version_id)
    fetched = sources.fetch(progress, Source(**source), Plan.from_json(plan), folder)
    _refuse_twin(version_id, files.model_sha256([FileView(**file) for file in fetched]))
    return fetched


def _extract(progress: Progress, version_id: str, fetched: list[dict[str, Any]]) -> dict[str, Any]:
    progress.update(None, f"{len(fetched)} files")
    with files.disk_errors():
        return extraction.describe([files.folder_of(version_id)])


def _scan(progress: Progress, version_id: str, fetched: list[dict[str, Any]]) -> dict[str, Any]:
    """Scan the files and compare them with what was fetched, in one read of each."""
    folder = files.folder_of(version_id)
    rate = files.Rate(progress, sum(file["size_bytes"] for file in fetched))
    with files.disk_errors():
        report = scanning.scan([folder], on_bytes=rate.add)
    found = {file.name: file.sha256 for file in report.files}
    for file in fetched:
        # One that is missing is a finding of its own, such as an archive made to fill the disk.
        sha256 = found.get(file["name"], file["sha256"])
        if sha256 != file["sha256"]:
            (folder / file["name"]).unlink()
            raise UpstreamFailed(
                f"{file['name']} on the disk is not what was fetched: its SHA-256 is "
                f"{sha256[:12]}…, not {file['sha256'][:12]}….",
                remedy="Check the disk, then add the model again.",
            )
    for finding in report.findings:
        progress.log(f"{finding.severity}: {finding.file}: {finding.what}", level="warning")
    for reason in report.reasons:
        progress.log(f"not scanned: {reason}", level="warning")
    progress.update(1, report.severity or report.state)
    return report.model_dump(mode="json")


def _save(
    progress: Progress,
    version_id: str,
    plan: dict[str, Any],
    fetched: list[dict[str, Any]],
    facts: dict[str, Any],
    scanned: dict[str, Any],
) -> None:
    kept = [FileView(**file) for file in fetched]
    size_bytes, sha256 = sum(file.size_bytes for file in kept), files.model_sha256(kept)
    _refuse_twin(version_id, sha256)
    uri = artifacts.keep(version_id, kept, files.Rate(progress, size_bytes))
    progress.check()
    with database.transaction() as tx:
        version = crud.version(tx, version_id)
        model = crud.model(tx, version.model_id) if version is not None else None
        if version is None or model is None:
            raise Conflict("The model was deleted while it was added.")
        take_facts(version, facts)
        licence = plan["licence"]
        version.licence = version.licence or (licence[:120] if licence else None)
        version.files, version.size_bytes, version.sha256 = fetched, size_bytes, sha256
        version.revision, version.artifact_uri = plan["revision"], uri
        version.path = str(_path_of(version_id, kept))
        take_report(version, ScanReport.model_validate(scanned))
        version.state, version.error = "ready", None
        tx.flush()
        versions.settle(tx, model)
    events.publish("models.changed")


def take_facts(version: ModelVersion, facts: dict[str, Any]) -> None:
    """Let a version bear what was found in its files."""
    for name, value in facts.items():
        setattr(version, name, value)


def take_report(version: ModelVersion, report: ScanReport) -> None:
    """Let a version bear its scan; an override holds for the findings that it was made for."""
    findings = [finding.model_dump(mode="json") for finding in report.findings]
    if version.override_at is not None and version.findings != findings:
        version.override_reason = version.override_by_name = version.override_at = None
    version.scan_state, version.severity = report.state, report.severity
    version.findings, version.scanned_at = findings, clock.now()
    version.scan_reasons = list(report.reasons)


def _path_of(version_id: str, kept: Sequence[FileView]) -> Path:
    """What an engine is given: the first GGUF file, or the folder of any other model."""
    folder = files.folder_of(version_id)
    return folder / kept[0].name if kept[0].name.lower().endswith(".gguf") else folder


def _fetch_kept(progress: Progress, version_id: str) -> list[dict[str, Any]]:
    version = ready_here(progress, version_id)
    if not version.managed:
        raise Conflict(
            "These files come with Bud and are checked by their SHA-256.",
            remedy="Nothing needs to be done.",
        )
    return version.files


def _save_report(progress: Progress, version_id: str, scanned: dict[str, Any]) -> None:
    progress.check()
    with database.transaction() as tx:
        version = crud.version(tx, version_id)
        if version is None:
            raise Conflict("The version was deleted while it was scanned.")
        take_report(version, ScanReport.model_validate(scanned))
        audit.record(
            tx,
            Actor.system(version.tenant_id),
            "model.scanned",
            f"model:{version.model_id}",
            project_id=version.project_id,
            version=version.number,
            severity=version.severity,
        )
    events.publish("models.changed")


def ready_here(progress: Progress, version_id: str) -> ModelVersion:
    """A version whose files are on this machine, fetched from the artifact store if need be.

    Raises:
        Conflict: It was deleted, or is not ready.
        BudError: The store cannot be reached, or has not what was put there.
    """
    with database.reading() as session:
        version = crud.version(session, version_id)
    if version is None or version.state != "ready":
        raise Conflict("The version was deleted, or is not ready.", remedy="Choose another one.")
    kept = [FileView(**file) for file in version.files]
    if version.artifact_uri is not None and not artifacts.is_here(version_id, kept):
        rate = files.Rate(progress, version.size_bytes)
        artifacts.fetch(version_id, version.artifact_uri, kept, rate, progress.sleep)
    return version


def _may_be_known(version_id: str, size_bytes: int) -> bool:
    with database.reading() as session:
        version = crud.version(session, version_id)
        return version is not None and crud.same_size(session, version, size_bytes)


def _refuse_twin(version_id: str, sha256: str) -> None:
    with database.reading() as session:
        version = crud.version(session, version_id)
        twin = crud.same_file(session, version, sha256) if version is not None else None
        model = crud.model(session, twin.model_id) if twin is not None else None
    if version is None or twin is None or model is None:
        return
    files.remove(version_id)
    if version.model_id == model.id:
        # Nothing new: not a version that failed, but none at all.
        _discard(model.id, version_id)
    raise Conflict(
        f"This file is already in the registry as {model.name!r}, version {twin.number}.",
        remedy="Use that one, or delete it first.",
    )
