"""Routing rules: set, compared, published, taken back, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from core.accounts import services as accounts
from core.contracts import route_table
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound, PermissionDenied
from core.projects import services as projects
from core.registry import services as registry
from core.routing import live, rules
from core.routing import services as routing
from core.routing.schemas import Rules

PROJECT = "prj_default"


@pytest.fixture
def models(data_dir: Path, admin: Actor, quick_passwords: None) -> list[str]:
    """Two deployments that nothing runs."""
    accounts.bootstrap("ada@example.org", None)
    projects.bootstrap()
    routing.subscribe()
    starter = registry.add_starter(admin)
    for name in ("large", "small"):
        request = DeploymentRequest(
            project_id=PROJECT, name=name, model_id=starter.id,
            context_tokens=256, slots=1, threads=1,
        )  # fmt: skip
        deployments.deploy(admin, request)
    return ["large", "small"]


def _route(model: str) -> route_table.Route:
    table = route_table.decode(routing.table_path().read_bytes())
    return next(route for route in table.routes if route.model == model)


def test_hedges_shadows_and_the_cache_are_rules_too(models: list[str], admin: Actor) -> None:
    told = CliRunner().invoke(
        app, ["routes", "set", "large", "--hedge", "250", "--hedge-percent", "2.5",
              "--shadow", "small=20", "--not-cached", "--yes"],
    )  # fmt: skip
    assert told.exit_code == 0, told.output
    route = _route("large")
    assert route.hedge == route_table.Hedge(after_ms=250.0, percent=2.5)
    assert route.shadow == route_table.Shadow(model="small", percent=20.0)
    assert not route.cached
    small = _route("small")
    assert (small.hedge, small.shadow, small.cached) == (None, None, True)
    shown = CliRunner().invoke(app, ["routes", "show", "large"]).output
    assert "hedged after 250 ms, 2.5% at most; 20% copied to small; answers not kept" in shown
    lines = rules.lines(rules.current(admin, PROJECT, "large"))
    assert lines[-6:] == [
        "hedge: delay", "hedge after: 250 ms", "hedged at most: 2.5 %", "shadow to: small",
        "shadowed: 20 %", "answers kept: no",
    ]  # fmt: skip
    for given in (["--hedge", "p95"], ["--hedge", "off"], ["--shadow", ""], ["--cached"]):
        assert CliRunner().invoke(app, ["routes", "set", "large", *given, "--yes"]).exit_code == 0
    route = _route("large")
    assert (route.hedge, route.shadow, route.cached) == (None, None, True)
    wrong: list[tuple[dict[str, object], type[Exception]]] = [
        ({"hedge": "delay"}, InvalidInput),
        ({"hedge": "p95", "hedge_after_ms": 10.0}, InvalidInput),
        ({"shadow": "large"}, InvalidInput),
        ({"shadow": "nobody"}, NotFound),
        ({"hedge_percent": 0.0}, InvalidInput),
    ]
    for values, error in wrong:
        with pytest.raises(error):
            rules.set_rules(admin, PROJECT, "large", rules.read(values))


def test_rules_are_versions_that_can_be_taken_back(models: list[str], admin: Actor) -> None:
    first = Rules(policy="prefix", fallbacks=("small",), total_s=30)
    assert rules.set_rules(admin, PROJECT, "large", first).version == 1
    route = _route("large")
    assert (route.policy, route.fallbacks, route.timeouts.total_s) == ("prefix", ["small"], 30)
    assert _route("small").policy == "p2c"

    assert rules.set_rules(admin, PROJECT, "large", first).version == 1  # nothing changed
    rules.set_rules(admin, PROJECT, "large", Rules(policy="fastest"))
    assert _route("large").fallbacks == []
    back = rules.roll_back(admin, PROJECT, "large")
    assert (back.version, back.rules) == (3, first)
    assert _route("large").policy == "prefix"
    assert rules.roll_back(admin, PROJECT, "large", 0).rules == Rules()
    assert [each.version for each in rules.history(admin, PROJECT, "large")] == [4, 3, 2, 1, 0]
    assert [each.version for each in rules.list_rules(admin, PROJECT)] == [4, 0]
    changes = [entry for entry in audit.entries(admin, PROJECT) if entry.action == "route.changed"]
    assert len(changes) == 4


def test_a_difference_is_in_words() -> None:
    changes = rules.changed(Rules(), Rules(fallbacks=("a", "b"), total_s=2.5))
    told = [(each.rule, each.before, each.after) for each in changes]
    assert told == [("fallbacks", "none", "a, b"), ("total_s", "the gateway's own", "2.5 s")]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"policy": "dice"}, "policy"),
        ({"total_s": 0}, r"Total \(s\): 0 is out of range\. Give 0\.1 to 86,400\."),
        ({"connect_s": -3.0}, r"Connect \(s\): -3 is out of range\. Give 0\.05 to 60\."),
        ({"hedge_percent": 0.0}, r"Hedged at most \(%\): 0 .* Give more than 0, up to 100\."),
        ({"targets": [{"model": "a", "priority": 101}]}, "Priority of a: 101 .* Give 0 to 100"),
        ({"weight": 1}, "weight"),
        ({"fallbacks": ["a"] * 11}, "fallbacks"),
    ],
)
def test_bad_rules_are_named(given: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        rules.read(given)


def test_what_does_not_exist_and_who_may_not(models: list[str], admin: Actor) -> None:
    with pytest.raises(NotFound, match="nearest: large"):
        rules.set_rules(admin, PROJECT, "huge", Rules())
    with pytest.raises(NotFound, match="'huge'"):
        rules.set_rules(admin, PROJECT, "large", Rules(fallbacks=("huge",)))
    with pytest.raises(InvalidInput, match="another model"):
        rules.set_rules(admin, PROJECT, "large", Rules(fallbacks=("large",)))
    with pytest.raises(NotFound, match="no version 7"):
        rules.roll_back(admin, PROJECT, "large", 7)
    nobody = Actor("usr_x", "X", admin.tenant_id, projects={"prj_b": "admin"})
    with pytest.raises(PermissionDenied):
        rules.set_rules(nobody, PROJECT, "large", Rules())
    elsewhere = Actor("usr_y", "Y", "ten_other", "admin")
    for ask in (
        lambda: rules.list_rules(elsewhere, PROJECT),
        lambda: rules.history(elsewhere, PROJECT, "large"),
        lambda: rules.set_rules(elsewhere, PROJECT, "large", Rules()),
        lambda: live.list_routes(elsewhere, PROJECT),
    ):
        with pytest.raises(NotFound, match="no project"):
            ask()


def test_the_command_line(models: list[str]) -> None:
    run = CliRunner().invoke
    made = run(app, ["routes", "set", "large", "--fallback", "small", "--total", "9", "--yes"])
    assert made.exit_code == 0, made.output
    assert (_route("large").fallbacks, _route("large").timeouts.total_s) == (["small"], 9)
    kept = run(app, ["routes", "set", "large", "--policy", "fastest", "--total", "0", "--yes"])
    assert kept.exit_code == 0, kept.output
    assert (_route("large").policy, _route("large").fallbacks) == ("fastest", ["small"])
    assert _route("large").timeouts.total_s is None
    assert run(app, ["routes", "roll-back", "large"]).exit_code == 0
    listed = json.loads(run(app, ["routes", "list", "--json"]).output)
    assert [(each["model"], each["version"]) for each in listed] == [("large", 3), ("small", 0)]
    assert "fastest" in run(app, ["routes", "history", "large"]).output
