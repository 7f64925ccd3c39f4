"""Versions of models: stages, approval, history, policy, overrides; and what people say of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from core.deployments import drafts
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest
from core.kernel import audit, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from core.registry import annotations, crud, files, versions, workflows
from core.registry import services as registry
from core.registry.scanning import Finding, ScanReport
from core.registry.schemas import ModelView, Stage, VersionView

PROJECT = "prj_default"
CRITICAL = Finding(
    severity="critical", kind="pickle-import", file="model.bin", what="It would run os.system."
)


@pytest.fixture
def member(data_dir: Path, admin: Actor) -> Actor:
    return Actor("usr_m", "m@example.org", admin.tenant_id, "member", {PROJECT: "member"})


@pytest.fixture
def project_admin(data_dir: Path, admin: Actor) -> Actor:
    return Actor("usr_a", "a@example.org", admin.tenant_id, "member", {PROJECT: "admin"})


def _added(admin: Actor, model_id: str | None = None, **facts: object) -> VersionView:
    """A version whose file is said to be the starter model's, as if a job had added it."""
    starter = versions.find_version(admin, registry.add_starter(admin).id)
    registration = {
        "tenant_id": admin.tenant_id,
        "project_id": PROJECT,
        "name": "ours",
        "source": "test",
        "created_by_name": admin.name,
    }
    with database.transaction() as tx:
        model, row = workflows.register(
            tx, model_id or ids.new_id("mod"), ids.new_id("ver"), registration
        )
        columns = starter.extracted | {"extracted": starter.extracted}
        workflows.take_facts(row, {k: v for k, v in columns.items() if hasattr(row, k)})
        workflows.take_report(row, ScanReport(state="scanned", severity="safe"))
        row.path, row.state = starter.path, "ready"
        for name, value in facts.items():
            setattr(row, name, value)
        tx.flush()
        versions.settle(tx, model)
    return versions.get_version(admin, row.id)


def _model(actor: Actor, version: VersionView) -> ModelView:
    return registry.get_model(actor, version.model_id)


def _deploy(actor: Actor, version: VersionView, **more: object) -> Callable[[], object]:
    request = {"project_id": PROJECT, "model_id": version.model_id, "slots": 1} | more
    return lambda: deployments.deploy(actor, DeploymentRequest(name="chat", **request))


def test_the_wizard_deploys_the_chosen_version(project_admin: Actor, admin: Actor) -> None:
    first = _added(admin, quantization="Q4_0")
    second = _added(admin, first.model_id, quantization="Q8_0")
    versions.set_stage(project_admin, first.id, "approved", "Evaluated on our questions.")
    versions.set_stage(project_admin, first.id, "production")
    draft = drafts.start(admin, PROJECT, first.model_id)
    assert draft.content.model_version_id is None, "the one in production, whichever that is then"
    drafts.save(admin, draft.id, "configuration", slots=2, threads=1)
    chosen = drafts.save(admin, draft.id, "targets", model_version_id=second.id)
    assert (chosen.content.slots, chosen.content.threads) == (None, None), "its size is another"
    other = _added(admin)
    for version_id in (other.id, "ver_none"):
        with pytest.raises(NotFound, match="has no version"):
            drafts.save(admin, draft.id, "targets", model_version_id=version_id)
        with pytest.raises(NotFound, match="has no version"):
            drafts.start(admin, PROJECT, first.model_id, version_id)
    drafts.save(admin, draft.id, "confirm", slots=1)
    assert drafts.confirm(admin, draft.id).model_version_id == second.id
    again = drafts.start(admin, PROJECT, first.model_id, second.id)
    moved = drafts.save(admin, again.id, "targets", model_id=other.model_id)
    assert moved.content.model_version_id is None, "a version belongs to its model"
    drafts.save(admin, again.id, "confirm", model_id=first.model_id, slots=1, name="prod")
    drafts.save(admin, again.id, "confirm", name="prod")
    assert drafts.confirm(admin, again.id).model_version_id == first.id


def test_one_version_is_in_production_and_the_history_says_which_when(
    project_admin: Actor, admin: Actor
) -> None:
    first = _added(admin, quantization="Q4_0")
    second = _added(admin, first.model_id, quantization="Q8_0")
    assert (first.number, second.number, second.stage) == (1, 2, "draft")
    assert _model(admin, first).quantization == "Q8_0"
    for version in (first, second):
        versions.set_stage(project_admin, version.id, "approved", "Evaluated on our questions.")
        versions.set_stage(project_admin, version.id, "production")
    assert [v.stage for v in versions.list_versions(admin, first.model_id)] == [
        "production",
        "approved",
    ]
    versions.set_stage(project_admin, first.id, "production", "Back: the new one is slower.")
    third = _added(admin, first.model_id, quantization="F16")
    assert _model(admin, third).quantization == "Q4_0"
    versions.set_stage(project_admin, third.id, "retired")
    with pytest.raises(Conflict, match=r"version 3 is retired.*Choose another version"):
        _deploy(admin, third, model_version_id=third.id)()
    versions.set_stage(project_admin, first.id, "approved", "Taken out for an hour.")
    assert _model(admin, first).quantization == "Q8_0"
    versions.set_stage(project_admin, first.id, "production")
    periods = versions.production_history(admin, first.model_id)
    assert [period.version_number for period in periods] == [1, 1, 2, 1]
    assert periods[0].end is None
    for newer, older in pairwise(periods):
        assert older.end is not None
        assert older.start < older.end <= newer.start
    changes = versions.stage_history(admin, first.model_id)
    assert (changes[0].comment, changes[0].by_name) == (
        "Evaluated on our questions.",
        "a@example.org",
    )
    recorded = audit.entries(admin, PROJECT, subject=f"model:{first.model_id}")
    assert len([row for row in recorded if row.action == "model.stage_changed"]) == len(changes)


@pytest.mark.parametrize(
    ("path", "stage", "comment", "error", "said"),
    [
        ((), "production", "now", Conflict, "is draft and cannot become production"),
        ((), "approved", "  ", InvalidInput, "from draft to approved needs a comment"),
        (("approved",), "draft", "", InvalidInput, "needs a comment"),
        (("approved", "retired"), "production", "x", Conflict, "It can become: draft"),
        ((), "approved", "x" * 2001, InvalidInput, "at most 2000 characters"),
    ],
)
def test_stages_follow_rules(
    data_dir: Path,
    admin: Actor,
    path: tuple[Stage, ...],
    stage: Stage,
    comment: str,
    error: type[Exception],
    said: str,
) -> None:
    version = _added(admin)
    for each in path:
        versions.set_stage(admin, version.id, each, "because")
    before = versions.get_version(admin, version.id)
    with pytest.raises(error, match=said):
        versions.set_stage(admin, version.id, stage, comment)
    assert versions.get_version(admin, version.id) == before


def test_members_add_and_admins_govern(member: Actor, admin: Actor) -> None:
    version = _added(admin)
    stranger = Actor("usr_s", "s@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    for act in (
        lambda: versions.set_stage(member, version.id, "approved", "fine"),
        lambda: versions.override_scan(member, version.id, "fine"),
        lambda: versions.set_policy(member, PROJECT, approved_only=True),
    ):
        with pytest.raises(PermissionDenied, match="model:govern"):
            act()
    with pytest.raises(NotFound):
        versions.get_version(stranger, version.id)
    starter = versions.find_version(member, registry.add_starter(admin).id)
    with pytest.raises(PermissionDenied):
        versions.set_stage(stranger, starter.id, "production", "ours")


def test_only_approved_versions_are_deployed_when_the_project_says_so(
    member: Actor, admin: Actor
) -> None:
    version = _added(admin)
    assert versions.policy(member, PROJECT).approved_only is False
    versions.set_policy(admin, PROJECT, approved_only=True)
    with pytest.raises(Conflict, match=r"version 1 is draft.*Let an admin approve it"):
        _deploy(member, version)()
    versions.set_stage(admin, version.id, "approved", "Checked.")
    made = _deploy(member, version)()
    assert deployments.list_deployments(member, PROJECT)[0] == made
    assert deployments.list_deployments(member, PROJECT)[0].model_version_id == version.id


def test_critical_findings_block_until_an_admin_gives_a_reason(
    member: Actor, project_admin: Actor, admin: Actor
) -> None:
    version = _added(admin)
    report = ScanReport(state="scanned", severity="critical", findings=(CRITICAL,))
    with database.transaction() as tx:
        workflows.take_report(crud.version(tx, version.id), report)
    with pytest.raises(Conflict, match=r"1 critical finding: model\.bin: It would run os\.system"):
        _deploy(member, version)()
    assert deployments.list_deployments(member, PROJECT) == []
    with pytest.raises(InvalidInput, match="needs a reason"):
        versions.override_scan(project_admin, version.id, " ")
    versions.override_scan(project_admin, version.id, "Read by hand: it only imports torch.")
    overridden = audit.entries(admin, PROJECT, subject=f"model:{version.model_id}")[0]
    assert (overridden.action, overridden.user_name, overridden.details["reason"]) == (
        "model.scan_overridden",
        "a@example.org",
        "Read by hand: it only imports torch.",
    )
    _deploy(member, version)()
    deployments.stop(member, deployments.list_deployments(member, PROJECT)[0].id)
    other = CRITICAL.model_copy(update={"file": "other.bin"})
    with database.transaction() as tx:
        row = crud.version(tx, version.id)
        workflows.take_report(row, report)
        assert row.override_at is not None
        workflows.take_report(row, report.model_copy(update={"findings": (CRITICAL, other)}))
    with pytest.raises(Conflict, match="2 critical findings"):
        deployments.start(member, deployments.list_deployments(member, PROJECT)[0].id)


def test_what_is_not_scanned_is_blocked_by_choice(member: Actor, admin: Actor) -> None:
    version = _added(admin)
    with database.transaction() as tx:
        unscanned = ScanReport(state="not scanned", severity=None)
        workflows.take_report(crud.version(tx, version.id), unscanned)
    view = versions.get_version(member, version.id)
    assert versions.blocked(member, PROJECT, view) == ("", "")
    versions.set_policy(admin, PROJECT, block_unscanned=True)
    with pytest.raises(Conflict, match=r"version 1 is not scanned.*Scan it"):
        _deploy(member, version)()
    versions.override_scan(admin, version.id, "The scanner is down; the file is ours.")
    versions.withdraw_override(admin, version.id)
    with pytest.raises(Conflict, match="not scanned"):
        _deploy(member, version)()


def test_a_deployment_keeps_to_its_version(member: Actor, admin: Actor) -> None:
    first = _added(admin, quantization="Q4_0")
    second = _added(admin, first.model_id, quantization="Q8_0")
    made = _deploy(member, first, model_version_id=first.id)()
    assert made.model_version_id == first.id
    assert versions.pinned(member, first.model_id, made.model_version_id).quantization == "Q4_0"
    with pytest.raises(Conflict, match="used by deployment chat"):
        registry.delete_version(member, first.id)
    registry.delete_version(member, second.id)
    assert _model(member, first).quantization == "Q4_0"
    assert not files.folder_of(second.id).exists()
    with pytest.raises(Conflict, match="is the only one|used by"):
        registry.delete_version(member, first.id)
    with pytest.raises(NotFound, match=r"has no version 2.*There are: 1"):
        versions.find_version(member, first.model_id, 2)


def test_a_model_that_llama_cpp_cannot_run_is_refused_by_name(member: Actor, admin: Actor) -> None:
    version = _added(admin, path="/models/ver_x")
    with pytest.raises(InvalidInput, match="not in a form that llama.cpp runs"):
        _deploy(member, version)()


def test_an_entry_of_the_catalogue_is_known_by_its_facts(member: Actor) -> None:
    facts = {"parameters": 8_190_735_360, "licence": "apache-2.0", "capabilities": ["chat"]}
    model = registry.add_from_catalogue(member, PROJECT, "qwen/qwen3-8b", **facts)
    assert (model.name, model.kind, model.state) == ("qwen3-8b", "local", "listed")
    assert (model.parameters, model.catalogue_id) == (8_190_735_360, "qwen/qwen3-8b")
    assert registry.add_from_catalogue(member, PROJECT, "qwen/qwen3-8b").id == model.id
    with pytest.raises(Conflict, match="entry of the catalogue without files"):
        versions.pinned(member, model.id, None)
    assert registry.rename_model(member, model.id, "Qwen 3").name == "Qwen 3"
    registry.delete_model(member, model.id)
    assert registry.list_models(member, PROJECT) == []


def test_tags_comments_and_favourites(member: Actor, project_admin: Actor, admin: Actor) -> None:
    subject, entry = f"model:{_added(admin).model_id}", "catalogue:qwen/qwen3-8b"
    assert annotations.set_tags(member, PROJECT, subject, [" Code ", "code", "small"]) == [
        "code",
        "small",
    ]
    annotations.set_tags(member, PROJECT, entry, ["code"])
    annotations.set_tags(member, PROJECT, subject, ["code", "fast"])
    assert annotations.tags(member, PROJECT) == {subject: ["code", "fast"], entry: ["code"]}
    assert annotations.tag_counts(member, PROJECT) == {"code": 2, "fast": 1}
    for bad, said in ((["#x"], "A tag has"), ([str(n) for n in range(21)], "at most 20")):
        with pytest.raises(InvalidInput, match=said):
            annotations.set_tags(member, PROJECT, subject, bad)
    with pytest.raises(NotFound, match="no model mod_none"):
        annotations.set_tags(member, PROJECT, "model:mod_none", ["x"])

    said = annotations.add_comment(member, PROJECT, subject, "Good at SQL.")
    assert annotations.edit_comment(member, said.id, "Very good at SQL.").edited_at is not None
    with pytest.raises(PermissionDenied, match="m@example.org's"):
        annotations.edit_comment(project_admin, said.id, "No.")
    assert [each.text for each in annotations.comments(member, PROJECT, subject)] == [
        "Very good at SQL."
    ]
    annotations.set_favourite(member, PROJECT, subject, marked=True)
    annotations.set_favourite(member, PROJECT, subject, marked=True)
    assert annotations.favourites(member, PROJECT) == {subject}
    assert annotations.favourites(project_admin, PROJECT) == set()
    annotations.delete_comment(project_admin, said.id)
    registry.delete_model(member, subject.removeprefix("model:"))
    assert annotations.tags(member, PROJECT) == {entry: ["code"]}
    assert annotations.favourites(member, PROJECT) == set()


def test_saved_views_are_ones_own_or_shared(member: Actor, project_admin: Actor) -> None:
    mine = annotations.save_view(member, PROJECT, "models", "Small", {"q": "small"})
    annotations.save_view(member, PROJECT, "models", "Small", {"q": "tiny"})
    shared = annotations.save_view(
        project_admin, PROJECT, "models", "Approved", {"stage": "approved"}, shared=True
    )
    seen = annotations.saved_views(member, PROJECT, "models")
    assert [(view.name, view.query) for view in seen] == [
        ("Approved", {"stage": "approved"}),
        ("Small", {"q": "tiny"}),
    ]
    assert [v.name for v in annotations.saved_views(project_admin, PROJECT, "models")] == [
        "Approved"
    ]
    with pytest.raises(PermissionDenied):
        annotations.delete_view(member, shared.id)
    with pytest.raises(NotFound):
        annotations.delete_view(project_admin, mine.id)
    annotations.delete_view(member, mine.id)
    assert annotations.saved_views(member, PROJECT, "leaderboards") == []


def test_a_project_that_goes_away_takes_its_registry_along(admin: Actor, member: Actor) -> None:
    version = _added(admin)
    subject = f"model:{version.model_id}"
    annotations.set_tags(member, PROJECT, subject, ["code"])
    annotations.save_view(member, PROJECT, "models", "Mine", {"q": "x"})
    versions.set_policy(admin, PROJECT, approved_only=True)
    registry.forget_project(admin, PROJECT)
    assert [model.name for model in registry.list_models(admin, PROJECT)] == [registry.STARTER_NAME]
    assert annotations.tags(member, PROJECT) == {}
    assert annotations.saved_views(member, PROJECT, "models") == []
    assert versions.policy(member, PROJECT).approved_only is False
