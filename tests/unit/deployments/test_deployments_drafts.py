"""Drafts of the deploy wizard, and the options that it ranks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.clusters import services as clusters
from core.deployments import drafts, options
from core.deployments import services as deployments
from core.deployments.options import Option
from core.deployments.schemas import DraftContent, DraftView, Load
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound, PermissionDenied
from core.registry import services as registry
from tests.unit.deployments.machines import PROJECT, probed

__all__ = ["probed"]


@pytest.fixture
def model_id(data_dir: Path, admin: Actor) -> str:
    return registry.add_starter(admin).id


@pytest.fixture
def draft(probed: None, admin: Actor, model_id: str) -> DraftView:
    return drafts.start(admin, PROJECT, model_id)


def _actions(admin: Actor, draft: DraftView) -> list[str]:
    entries = audit.entries(admin, PROJECT, subject=f"deployment_draft:{draft.id}")
    return [entry.action.removeprefix("deployment_draft.") for entry in reversed(entries)]


def test_a_draft_is_kept_step_by_step_and_each_change_is_audited(
    admin: Actor, draft: DraftView
) -> None:
    assert (draft.step, draft.content.name) == ("targets", "smollm2-135m-instruct")
    drafts.save(admin, draft.id, "options", load=Load(isl=64, osl=16), tpot_ms=50.0)
    kept = drafts.get_draft(admin, draft.id)
    assert (kept.step, kept.content.load.isl, kept.content.tpot_ms) == ("options", 64, 50.0)
    assert drafts.list_drafts(admin, PROJECT) == [kept]
    drafts.cancel(admin, draft.id)
    assert drafts.list_drafts(admin, PROJECT) == []
    with pytest.raises(NotFound, match="no draft"):
        drafts.get_draft(admin, draft.id)
    assert _actions(admin, draft) == ["started", "saved", "cancelled"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"load": Load(isl=0)}, "Input tokens: 0"),
        ({"load": Load(osl=10**9)}, "Output tokens: 1,000,000,000"),
        ({"load": Load(concurrency=-1)}, "Requests in flight: -1"),
        ({"ttft_ms": 0.0}, "target for TTFT"),
        ({"tpot_ms": float("nan")}, "target for TPOT"),
    ],
)
def test_bad_numbers_are_refused_and_nothing_is_lost(
    admin: Actor, draft: DraftView, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidInput, match=why):
        drafts.save(admin, draft.id, "options", **changes)
    assert drafts.get_draft(admin, draft.id) == draft
    assert _actions(admin, draft) == ["started"]


def test_another_model_starts_afresh(admin: Actor, draft: DraftView) -> None:
    changed = drafts.save(admin, draft.id, "configuration", slots=2, name="mine", replicas=2)
    assert (changed.content.slots, changed.content.name) == (2, "mine")
    with pytest.raises(NotFound):
        drafts.save(admin, draft.id, "targets", model_id="mod_none")
    again = drafts.save(admin, draft.id, "targets", model_id=draft.content.model_id)
    assert again.content.slots == 2, "the same model changes nothing"


def test_project_b_sees_nothing_of_a(admin: Actor, draft: DraftView) -> None:
    stranger = Actor("usr_b", "b@example.org", admin.tenant_id, "member", {"prj_b": "admin"})
    assert drafts.list_drafts(stranger, "prj_b") == []
    with pytest.raises(PermissionDenied):
        drafts.list_drafts(stranger, PROJECT)
    with pytest.raises(PermissionDenied):
        drafts.start(stranger, PROJECT)
    for use in (drafts.get_draft, drafts.cancel, drafts.confirm):
        with pytest.raises(NotFound):
            use(stranger, draft.id)
    with pytest.raises(NotFound):
        drafts.save(stranger, draft.id, "options")
    assert drafts.get_draft(admin, draft.id) == draft


def test_a_confirmed_draft_becomes_a_deployment(admin: Actor, draft: DraftView) -> None:
    drafts.save(admin, draft.id, "confirm", name="mine", slots=2, threads=1, context_tokens=512)
    made = drafts.confirm(admin, draft.id)
    assert (made.name, made.slots, made.context_tokens) == ("mine", 2, 512)
    assert drafts.list_drafts(admin, PROJECT) == []
    assert _actions(admin, draft)[-1] == "confirmed"


def test_a_draft_that_cannot_be_deployed_is_kept(admin: Actor, draft: DraftView) -> None:
    drafts.confirm(admin, draft.id)
    second = drafts.start(admin, PROJECT, draft.content.model_id)
    drafts.save(admin, second.id, "confirm", name=draft.content.name)
    with pytest.raises(Conflict, match="already a deployment"):
        drafts.confirm(admin, second.id)
    assert drafts.get_draft(admin, second.id).step == "confirm"


def test_options_are_ranked_by_targets_then_speed(admin: Actor, draft: DraftView) -> None:
    content = draft.content.model_copy(update={"load": Load(isl=64, osl=32, concurrency=4)})
    found = options.ranked(admin, PROJECT, content)
    assert all(option.cluster_id == clusters.THIS_MACHINE for option in found)
    assert not any(option.ruled_out or option.misses for option in found)
    speeds = [_speed(option) for option in found]
    assert speeds == sorted(speeds, reverse=True)
    strengths = [strength for option in found for strength in option.strengths]
    assert sorted(strengths) == [
        "least memory",
        "most tokens/s",
        "quickest first token",
        "quickest tokens",
    ]
    quickest = min(found, key=lambda option: _tpot(option))
    between = (_tpot(quickest) + max(_tpot(option) for option in found)) / 2
    judged = options.ranked(admin, PROJECT, content.model_copy(update={"tpot_ms": between}))
    assert judged[0].misses == ()
    assert judged[-1].misses == ("TPOT",)


def _speed(option: Option) -> float:
    assert option.predicted is not None
    return option.predicted.tokens_per_s.mean


def _tpot(option: Option) -> float:
    assert option.predicted is not None
    return option.predicted.tpot_ms.mean


def test_a_cluster_that_is_ruled_out_says_why(admin: Actor, draft: DraftView) -> None:
    too_long = draft.content.model_copy(update={"load": Load(isl=9000, osl=1000)})
    (option,) = options.ranked(admin, PROJECT, too_long)
    assert "9,000 input tokens and 1,000 output tokens need a context of 10,000 tokens" in (
        option.ruled_out
    )
    assert "was trained for 8,192. Go back to the step Targets" in option.ruled_out
    assert option.predicted is None
    (unknown,) = options.ranked(admin, PROJECT, DraftContent(model_id="mod_none"))
    assert "mod_none" in unknown.ruled_out


def test_a_draft_has_the_context_of_the_model_and_more_where_its_load_needs_it(
    admin: Actor, draft: DraftView
) -> None:
    found = options.ranked(admin, PROJECT, draft.content.model_copy(update={"load": Load()}))
    assert {option.fit.context_tokens for option in found if option.fit} == {8192}
    # Room for half as much again is not there: what was asked for fits all the same.
    long = draft.content.model_copy(update={"load": Load(isl=8000, osl=100)})
    assert not options.ranked(admin, PROJECT, long)[0].ruled_out
    embeds = draft.content.model_copy(update={"task": "embedding", "load": Load(isl=2000)})
    (option,) = options.ranked(admin, PROJECT, embeds)
    assert option.predicted is None
    assert option.strengths == ("least memory",)
    assert option.fit is not None
    assert option.fit.context_tokens == 3072


def test_another_task_lets_what_depends_on_it_be_chosen_anew(
    admin: Actor, draft: DraftView
) -> None:
    drafts.save(admin, draft.id, "configuration", context_tokens=512)
    assert drafts.save(admin, draft.id, "options", slots=2).content.context_tokens == 512
    changed = drafts.save(admin, draft.id, "options", task="embedding").content
    assert (changed.task, changed.context_tokens, changed.slots) == ("embedding", None, None)


def test_a_configuration_is_predicted_and_warned_of(admin: Actor, draft: DraftView) -> None:
    small = draft.content.model_copy(
        update={"load": Load(isl=400, osl=400), "context_tokens": 512, "slots": 1, "threads": 1}
    )
    option = options.evaluate(admin, PROJECT, small)
    assert option.predicted is not None
    assert "800 tokens does not fit in a context of 512" in option.note
    huge = small.model_copy(update={"context_tokens": 8192, "slots": 64, "replicas": 32})
    refused = options.evaluate(admin, PROJECT, huge)
    assert "are free" in refused.ruled_out
    assert option.usd_per_hour is None
    assert option.usd_per_million_output_tokens is None
    with pytest.raises(InvalidInput, match="threads must be"):
        options.evaluate(admin, PROJECT, small.model_copy(update={"threads": 10_000}))
    assert deployments.list_deployments(admin, PROJECT) == []
