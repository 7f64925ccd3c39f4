"""What-if questions, the choice of a model, and saved scenarios with who may see them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.accounts import services as accounts
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import BudError, Conflict, InvalidInput, NotFound, PermissionDenied
from core.prices import services as prices
from core.projects import services as projects
from core.simulation import (
    kept_traces,
    licences,
    questions,
    sensitivity,
    services,
    subjects,
    traces,
    what_if,
)
from core.simulation.schemas import Targets, WhatIf

EIGHT = WhatIf(gpus=8, tp=2, concurrency=64)


@pytest.fixture
def project(data_dir: Path, quick_passwords: None, monkeypatch: pytest.MonkeyPatch) -> str:
    """The default project, on shipped models and devices: nothing is probed or read from disk."""
    accounts.bootstrap("admin@example.org", Secret("correct-horse-battery"))
    projects.bootstrap()
    monkeypatch.setattr(subjects, "for_actor", lambda _actor: subjects.shipped())
    return accounts.DEFAULT_PROJECT_ID


def test_an_answer_hangs_together(project: str, admin: Actor) -> None:
    answer = services.ask(admin, project, EIGHT)
    outcome = answer.outcome
    assert answer.title == "llama-3.1-8b on 8 × NVIDIA H100 SXM 80 GB"
    for band in (outcome.ttft_ms, outcome.tpot_ms, outcome.e2e_ms, outcome.tokens_per_s_per_gpu):
        assert 0 < band.low <= band.mean <= band.high
    assert outcome.tokens_per_s_per_user.mean == pytest.approx(1e3 / outcome.tpot_ms.mean)
    per_gpu = outcome.requests_per_s * EIGHT.osl / 8
    assert outcome.tokens_per_s_per_gpu.mean == pytest.approx(per_gpu)
    assert outcome.usd_per_hour is not None
    assert outcome.usd_per_million_output_tokens is not None
    assert outcome.usd_per_million_output_tokens.mean == pytest.approx(
        outcome.usd_per_hour / 3600 / (per_gpu * 8) * 1e6
    )
    assert outcome.memory.needed_gb + outcome.memory.free_gb == pytest.approx(
        outcome.memory.usable_gb
    )
    assert outcome.fits
    assert not answer.remedies
    assert "vllm serve meta-llama" in answer.launch


def test_curves_show_other_layouts_of_as_many_gpus(project: str, admin: Actor) -> None:
    answer = services.ask(admin, project, EIGHT)
    assert [curve.layout for curve in answer.curves] == ["4 × TP 2", "8 × TP 1", "2 × TP 4", "TP 8"]
    for curve in answer.curves:
        loads = [point.concurrency for point in curve.points]
        assert loads == sorted(set(loads))
        assert EIGHT.concurrency in loads
    asked = next(
        point for point in answer.curves[0].points if point.concurrency == EIGHT.concurrency
    )
    assert asked.outcome == answer.outcome


def test_changes_are_what_asking_for_them_would_say(project: str, admin: Actor) -> None:
    changes = {each.name: each for each in services.ask(admin, project, EIGHT).changes}
    for name in ("FP8 weights", "One more copy (2 more GPUs)", "TP 2 → 4, same GPUs"):
        change = changes[name]
        assert change.outcome == services.ask(admin, project, change.query).outcome
    assert changes["One more copy (2 more GPUs)"].query.gpus == 10
    assert changes["Half the concurrency"].query.concurrency == 32


def test_what_is_not_possible_says_why(project: str, admin: Actor) -> None:
    changes = {each.name: each for each in services.ask(admin, project, EIGHT).changes}
    assert changes["FP4"].outcome is None
    assert "FP4" in changes["FP4"].reason
    spread = changes["Experts spread (EP)"]
    assert (spread.outcome, spread.reason) == (None, "the model has no experts")


def test_a_split_deployment_is_answered_with_its_own_changes(project: str, admin: Actor) -> None:
    query = WhatIf(mode="disagg", prefill_workers=1, prefill_tp=2, decode_workers=2, decode_tp=4)
    answer = services.ask(admin, project, query)
    assert answer.outcome.devices == 10
    assert "One more decode worker (4 more GPUs)" in {each.name for each in answer.changes}
    assert answer.launch.count("vllm serve") == 2


def test_what_does_not_fit_is_answered_and_says_what_would(project: str, admin: Actor) -> None:
    query = WhatIf(model="deepseek-ai/DeepSeek-R1", gpus=8, tp=8)
    answer = services.ask(admin, project, query)
    outcome = answer.outcome
    assert not outcome.fits
    assert outcome.usd_per_million_output_tokens is None
    assert outcome.most_concurrency == 0
    assert outcome.ttft_ms.mean > 0
    assert "TP 16 (16 GPUs a copy)" in answer.remedies
    wider = services.ask(admin, project, query.model_copy(update={"gpus": 16, "tp": 16}))
    assert wider.outcome.fits


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"gpus": 0}, InvalidInput, "number of GPUs is 0"),
        ({"gpus": -8}, InvalidInput, "number of GPUs is -8"),
        ({"isl": 10**9}, InvalidInput, "Input tokens is 1,000,000,000"),
        ({"osl": 0}, InvalidInput, "Output tokens is 0"),
        ({"concurrency": 10**9}, InvalidInput, "Concurrency"),
        ({"prefix_hit_share": 1.0}, InvalidInput, "prefix hits"),
        ({"gpus": 6, "tp": 4}, InvalidInput, "4 or 8 GPUs"),
        ({"engine": "vlm"}, InvalidInput, "vllm"),
        ({"precision": "fp9"}, InvalidInput, "fp8"),
        ({"model": "lama-3.1-8b"}, NotFound, "llama-3.1-8b"),
        ({"hardware": "h1000_sxm"}, NotFound, "h100_sxm"),
        ({"hardware": "aws:p6.giant"}, NotFound, "p5.48xlarge"),
    ],
    ids=str,
)
def test_a_wrong_question_is_refused_with_a_remedy(
    project: str, admin: Actor, wrong: dict[str, object], error: type[BudError], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        services.ask(admin, project, WhatIf().model_copy(update=wrong))
    assert raised.value.remedy


def test_notes_say_what_to_know(project: str, admin: Actor) -> None:
    def notes(**asked: object) -> str:
        return " ".join(services.ask(admin, project, WhatIf().model_copy(update=asked)).notes)

    assert "made for 8,192" in notes(model="llama-3-8b", isl=16_000)
    assert "spans several nodes" in notes(model="llama-3.1-70b", gpus=16, tp=16)
    assert "keep only 2" in notes(gpus=4, concurrency=2)
    assert "wait" in notes(concurrency=5000)
    assert "No engine would start this" in notes(engine="atom")
    assert notes() == ""


def test_a_cloud_instance_is_paid_for_whole(project: str, admin: Actor) -> None:
    by_instance = services.ask(admin, project, WhatIf(hardware="aws:p5.48xlarge"))
    assert {offer.instance for offer in by_instance.offers} == {"p5.48xlarge"}
    assert by_instance.offers[0].idle_devices == 7
    given = services.ask(admin, project, WhatIf(usd_per_gpu_hour=2.0))
    assert given.outcome.usd_per_hour == 2.0
    assert "aws:p5.48xlarge" in services.instances()


def test_what_has_no_price_has_no_cost(project: str, admin: Actor) -> None:
    answer = services.ask(admin, project, WhatIf(hardware="mi355x"))
    assert answer.offers == ()
    assert answer.outcome.usd_per_million_output_tokens is None


def test_this_machine_costs_what_settings_say(project: str, admin: Actor) -> None:
    rates = services._rates(admin, WhatIf(), "this-machine", "")
    assert rates.usd_per_hour(1) is None
    prices.set_machine_price(admin, usd_per_hour=0.12)
    assert services._rates(admin, WhatIf(), "this-machine", "").usd_per_hour(1) == 0.12


def test_a_link_carries_a_question_and_refuses_what_is_none() -> None:
    query = WhatIf(gpus=8, tp=2, dp=2, precision="fp8", prefix_hit_share=0.5)
    link = questions.to_link(query)
    assert set(link) == {"gpus", "tp", "dp", "precision", "prefix_hit_share"}
    assert questions.from_link(link | {"project": "Default", "view": "Compare"}) == query
    with pytest.raises(InvalidInput, match="gpus cannot be read"):
        questions.from_link({"gpus": "many"})


def test_names_of_a_link_become_those_of_the_lists(project: str, admin: Actor) -> None:
    query = WhatIf(model="meta-llama/Llama-3.1-8B-Instruct", hardware="H100 SXM")
    known = services.canonical(admin, query)
    assert (known.model, known.hardware) == ("llama-3.1-8b", "h100_sxm")
    unknown = WhatIf(model="no-such-model", hardware="aws:p5.48xlarge")
    assert services.canonical(admin, unknown) == unknown


def test_the_front_is_what_nothing_beats() -> None:
    latencies = [1.0, 2.0, 2.0, 3.0, 4.0]
    throughputs = [10.0, 9.0, 20.0, 20.0 + 1e-12, 30.0]
    assert what_if.pareto(latencies, throughputs) == [True, False, True, False, True]


def test_every_change_differs_from_the_question(project: str, admin: Actor) -> None:
    at = services.pairing(admin, EIGHT)
    for change in sensitivity.changes(EIGHT, at):
        assert change.query != EIGHT, change.name


def test_models_are_chosen_by_targets_and_licence(project: str, admin: Actor) -> None:
    query, targets = WhatIf(gpus=8), Targets(ttft_ms=500, tpot_ms=30)
    found = services.choose_model(admin, project, query, targets, precisions=["fp8"])
    meeting = [each for each in found if each.meets]
    assert meeting
    assert found[: len(meeting)] == meeting
    for each in meeting:
        assert each.outcome.ttft_ms.mean <= 500
        assert each.outcome.tpot_ms.mean <= 30
        assert each.query.precision in ("", "fp8")
        assert each.query.gpus <= 8
    costs = [each.outcome.usd_per_million_output_tokens for each in meeting]
    means = [usd.mean for usd in costs if usd is not None]
    assert means == sorted(means)
    assert len({each.model for each in found}) == len(found)
    free = services.choose_model(
        admin, project, query, targets, uses=frozenset({licences.PERMISSIVE})
    )
    assert {each.licence_class for each in free} == {licences.PERMISSIVE}
    assert len(free) < len(found)


def test_a_target_that_nothing_meets_names_the_nearest(project: str, admin: Actor) -> None:
    query = WhatIf(gpus=1)
    found = services.choose_model(admin, project, query, Targets(tpot_ms=0.001))
    assert all(each.misses == ("TPOT",) for each in found)
    assert found[0].outcome.tpot_ms.mean == min(each.outcome.tpot_ms.mean for each in found)


def test_an_unknown_cost_never_meets_a_cost_target(project: str, admin: Actor) -> None:
    targets = Targets(usd_per_million_output_tokens=1e9)
    found = services.choose_model(admin, project, WhatIf(hardware="mi355x"), targets)
    assert found
    assert all(each.misses == ("cost",) for each in found)


def test_licences_are_classed_and_never_guessed() -> None:
    def use(name: str | None) -> str:
        return licences.of_model("own", {"own": name}).use

    assert use("apache-2.0") == use("mit") == licences.PERMISSIVE
    assert use("llama3.1") == use("gpl-3.0") == licences.CONDITIONAL
    assert use("cc-by-nc-4.0") == use("cohere-cc-by-nc-addendum") == licences.NON_COMMERCIAL
    assert use("some licence of ours") == use("modified-mit") == licences.UNKNOWN
    assert licences.of_model("own", {}).name == licences.UNKNOWN_LICENCE
    assert licences.of_model("llama-3.1-8b", {}).use == licences.CONDITIONAL
    # The registry knows better than the shipped list.
    assert licences.of_model("llama-3.1-8b", {"llama-3.1-8b": "mit"}).name == "mit"


def test_most_shipped_models_have_a_licence_with_answers() -> None:
    ids = subjects.shipped().models.ids
    known = [each for each in ids if licences.of_model(each, {}).use != licences.UNKNOWN]
    assert len(known) >= 0.8 * len(ids)


def test_a_scenario_is_saved_renamed_and_deleted(project: str, admin: Actor) -> None:
    made = services.save_scenario(admin, project, "  Chat for support ", EIGHT)
    assert made.name == "Chat for support"
    assert services.get_scenario(admin, made.id).query == EIGHT
    renamed = services.rename_scenario(admin, made.id, "Support")
    assert [each.name for each in services.list_scenarios(admin, project)] == ["Support"]
    assert renamed.updated_at >= made.updated_at
    services.delete_scenario(admin, made.id)
    with pytest.raises(NotFound):
        services.get_scenario(admin, made.id)
    log = [entry.action for entry in audit.entries(admin, project)]
    assert log == ["scenario.deleted", "scenario.renamed", "scenario.created"]


def test_names_are_unique_and_wrong_questions_are_not_saved(project: str, admin: Actor) -> None:
    made = services.save_scenario(admin, project, "one", EIGHT)
    other = services.save_scenario(admin, project, "two", EIGHT)
    with pytest.raises(Conflict):
        services.save_scenario(admin, project, "one", EIGHT)
    with pytest.raises(Conflict):
        services.rename_scenario(admin, other.id, "one")
    services.rename_scenario(admin, made.id, "one")
    for name in ("", "  ", "x" * 81):
        with pytest.raises(InvalidInput):
            services.save_scenario(admin, project, name, EIGHT)
    with pytest.raises(InvalidInput):
        services.save_scenario(admin, project, "none", WhatIf(gpus=0))


def test_another_project_sees_nothing(project: str, admin: Actor) -> None:
    theirs = projects.create_project(admin, "Theirs").id
    made = services.save_scenario(admin, project, "secret", EIGHT)
    outsider = Actor("usr_b", "b@example.org", admin.tenant_id, "member", {theirs: "member"})
    assert services.list_scenarios(outsider, theirs) == []
    for act in (
        lambda: services.get_scenario(outsider, made.id),
        lambda: services.rename_scenario(outsider, made.id, "mine"),
        lambda: services.delete_scenario(outsider, made.id),
    ):
        with pytest.raises(NotFound):
            act()
    for act in (
        lambda: services.list_scenarios(outsider, project),
        lambda: services.ask(outsider, project, EIGHT),
        lambda: services.save_scenario(outsider, project, "x", EIGHT),
        lambda: services.choose_model(outsider, project, EIGHT, Targets()),
    ):
        with pytest.raises(PermissionDenied):
            act()
    stranger = replace(Actor.system("ten_other"), user_id="usr_c")
    with pytest.raises(NotFound):
        services.get_scenario(stranger, made.id)


def test_a_project_that_goes_away_leaves_nothing(project: str, admin: Actor) -> None:
    theirs = projects.create_project(admin, "Theirs").id
    gone = services.save_scenario(admin, theirs, "gone", EIGHT)
    stays = services.save_scenario(admin, project, "stays", EIGHT)
    trace = kept_traces.keep(theirs, traces.shipped("azure-code"))
    services.forget_project(admin, theirs)
    with pytest.raises(NotFound):
        services.get_scenario(admin, gone.id)
    assert kept_traces.kept(theirs) == []
    assert trace not in kept_traces.kept(project)
    assert services.get_scenario(admin, stays.id).name == "stays"


def test_at_most_four_stand_side_by_side(project: str, admin: Actor) -> None:
    answers = services.compare(admin, project, [EIGHT, WhatIf()])
    assert [each.outcome.devices for each in answers] == [8, 1]
    with pytest.raises(InvalidInput):
        services.compare(admin, project, [EIGHT] * 5)
