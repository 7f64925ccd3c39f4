"""Routes with targets: published, taken back, refused, seen live."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from app.cli import app
from core.accounts import services as accounts
from core.contracts import gateway_state, route_table
from core.contracts.gateway_state import ReplicaState, TargetState, WorkerState
from core.contracts.route_table import Replica, Route
from core.deployments import hosted
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest, Task
from core.kernel import clock, database
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import BudError, Conflict, InvalidInput, NotFound
from core.kernel.keys import keyring
from core.kernel.settings import settings
from core.prices import services as prices
from core.projects import services as projects
from core.registry import services as registry
from core.registry.models import Provider
from core.routing import live, rules
from core.routing import services as routing
from core.routing.schemas import Rules, TargetRule
from gateway import split
from gateway.table import TableHolder

PROJECT = "prj_default"


def deploy(admin: Actor, name: str, task: Task = "chat", project_id: str = PROJECT) -> str:
    starter = registry.add_starter(admin)
    request = DeploymentRequest(
        project_id=project_id, name=name, model_id=starter.id, task=task,
        context_tokens=256, slots=1, threads=1,
    )  # fmt: skip
    return deployments.deploy(admin, request).id


def serve_mini(admin: Actor) -> str:
    """A hosted model `mini`, as if its provider had answered; the id of its registry entry."""
    sealed = keyring().seal(Secret('{"api_key": "sk-1"}'), context="provider:prv_1")
    now = clock.now()
    with database.transaction() as tx:
        tx.add(
            Provider(
                id="prv_1", tenant_id="ten_default", project_id=PROJECT, name="Account",
                kind="openai", base_url="https://api.openai.com/v1", options={},
                sealed_credentials=sealed, models=[{"id": "mini", "context_tokens": 128_000}],
                checked_at=now, rotated_at=now, created_by_name="A", created_at=now,
            )
        )  # fmt: skip
    model_id = registry.add_hosted(admin, "prv_1", "mini").id
    hosted.serve(admin, model_id, "mini")
    return model_id


@pytest.fixture
def models(data_dir: Path, admin: Actor, quick_passwords: None) -> dict[str, str]:
    """Deployments that nothing runs, by name."""
    accounts.bootstrap("ada@example.org", None)
    projects.bootstrap()
    routing.subscribe()
    made = {name: deploy(admin, name) for name in ("large", "small")}
    return made | {"vectors": deploy(admin, "vectors", "embedding")}


def table() -> dict[str, Route]:
    found = route_table.decode(routing.table_path().read_bytes())
    return {route.model: route for route in found.routes}


def canary(*weights: float, **fields: Any) -> Rules:
    names = ("large", "small")
    targets = tuple(TargetRule(model=n, weight=w) for n, w in zip(names, weights, strict=True))
    return Rules(targets=targets, **fields)


def test_a_route_is_made_changed_taken_back_and_removed(
    models: dict[str, str], admin: Actor
) -> None:
    serve_mini(admin)
    prices.set_token_price(
        admin, PROJECT, "small", input_usd_per_million_tokens=3, output_usd_per_million_tokens=4
    )
    prices.set_token_price(
        admin, PROJECT, "mini", input_usd_per_million_tokens=1, output_usd_per_million_tokens=9
    )
    wanted = Rules(
        targets=(
            TargetRule(model="small", weight=90),
            TargetRule(model="mini", weight=10, priority=1),
        ),
        split_by="key",
        policy="fastest",
    )
    assert rules.set_rules(admin, PROJECT, "chat", wanted, seen_version=0).version == 1
    route = table()["chat"]
    assert [(each.model, each.weight, each.priority) for each in route.targets] == [
        ("small", 90, 0),
        ("mini", 10, 1),
    ]
    assert (route.split_by, route.policy, route.replicas) == ("key", "fastest", [])
    # What all of them can do, the shortest context, and the most it may cost.
    assert (route.capabilities, route.context_tokens) == (["chat"], 256)
    price = route.price
    assert price is not None
    assert (price.input_usd_per_million_tokens, price.output_usd_per_million_tokens) == (3, 9)
    assert route.deployment_id.startswith("rte_")

    with pytest.raises(Conflict, match="Version 1"):
        rules.set_rules(admin, PROJECT, "chat", canary(1, 1), seen_version=0)
    proposal = rules.propose(admin, PROJECT, "chat", canary(1, 1))
    told = {each.rule: (each.before, each.after) for each in proposal.changes}
    assert told["targets"] == ("small × 90, mini × 10 at priority 1", "large × 1, small × 1")
    assert table()["chat"] == route
    rules.set_rules(admin, PROJECT, "chat", proposal.rules, seen_version=proposal.version)
    assert rules.roll_back(admin, PROJECT, "chat").rules == wanted
    with pytest.raises(Conflict, match="would be gone"):
        rules.roll_back(admin, PROJECT, "chat", 0)
    assert table()["chat"] == route

    rules.remove(admin, PROJECT, "chat")
    assert "chat" not in table()
    assert [view.model for view in rules.list_rules(admin, PROJECT)] == sorted([*models, "mini"])
    assert rules.history(admin, PROJECT, "chat")[0].version == 4
    rules.roll_back(admin, PROJECT, "chat")
    assert table()["chat"] == route


def test_the_gateway_asks_the_cheapest_target_by_the_prices_that_are_set(
    models: dict[str, str], admin: Actor
) -> None:
    hosted.serve(admin, serve_mini(admin), "maxi")
    targets = (TargetRule(model="maxi", weight=9), TargetRule(model="mini"))
    rules.set_rules(admin, PROJECT, "chat", Rules(targets=targets, policy="cheapest"))
    served = TableHolder(routing.table_path(), settings().keys_folder)

    def first() -> str:
        asyncio.run(served.refresh())
        held = served.current.routes[PROJECT, "chat"]
        named = {share.target.route.deployment_id: share.name for share in held.shares}
        found = {named[split.order(held.shares)[0].route.deployment_id] for _ in range(20)}
        assert len(found) == 1, found
        return found.pop()

    def price(model: str, usd: float) -> None:
        prices.set_token_price(
            admin, PROJECT, model,
            input_usd_per_million_tokens=usd, output_usd_per_million_tokens=4 * usd,
        )  # fmt: skip

    price("maxi", 9.0)
    assert first() == "maxi", "the other one may cost anything"
    price("mini", 0.6)
    assert first() == "mini"
    price("maxi", 0.5)
    assert first() == "maxi"
    shown = live.get_route(admin, PROJECT, "chat")
    assert [target.share for target in shown.targets] == [None, None]
    assert [target.output_usd_per_million_tokens for target in shown.targets] == [2.0, 2.4]


_REFUSED: list[tuple[str, dict[str, Any], type[BudError], str]] = [
    ("chat", {"targets": [{"model": "huge"}]}, NotFound, "'huge'.*large"),
    ("chat", {"targets": [{"model": "abroad"}]}, NotFound, "own project"),
    ("chat", {"targets": [{"model": "both"}]}, InvalidInput, "has targets itself"),
    ("chat", {"targets": [{"model": "large"}, {"model": "large"}]}, InvalidInput, "once"),
    ("chat", {"targets": [{"model": "large", "weight": 0}]}, InvalidInput, "weight 0"),
    (
        "chat",
        {"targets": [{"model": "large", "weight": -1}]},
        InvalidInput,
        r"Weight of large: -1 is out of range\. Give 0 to 1,000,000\.",
    ),
    ("chat", {"targets": [{"model": "large", "weight": "nan"}]}, InvalidInput, "weight"),
    (
        "chat",
        {"targets": [{"model": "large"}, {"model": "vectors"}]},
        InvalidInput,
        "common.*vectors: embedding",
    ),
    (
        "chat",
        {"targets": [{"model": "large"}], "fallbacks": ["large"]},
        InvalidInput,
        "fallback too",
    ),
    ("chat", {"targets": [{"model": "looping"}]}, InvalidInput, "would ask looping again"),
    ("chat", {"targets": [{"model": "large"}], "fallbacks": ["chat"]}, InvalidInput, "another"),
    (
        "Bad Name!",
        {"targets": [{"model": "large"}]},
        InvalidInput,
        r"A route's name has .*small letters.* Write it as bad-name\.",
    ),
    ("!", {"targets": [{"model": "large"}]}, InvalidInput, "such as smollm2-135m"),
    (
        "large",
        {"targets": [{"model": "small"}]},
        InvalidInput,
        "name of its own.*such as large-all.*click large, then Edit",
    ),
    ("large", {"fallbacks": ["both"]}, InvalidInput, "would ask large again"),
    ("large", {"split_by": "key"}, InvalidInput, "no targets"),
    ("large", {"health_path": "/health"}, InvalidInput, "no hosted model"),
    ("large", {"policy": "cheapest"}, InvalidInput, "alike in weight and price"),
    ("large", {"policy": "weighted"}, InvalidInput, "alike in weight and price"),
    (
        "chat",
        {"targets": [{"model": "large"}], "policy": "cheapest", "split_by": "key"},
        InvalidInput,
        "cheapest target",
    ),
    ("both", {"policy": "prefix"}, InvalidInput, "needs a target"),
    ("nobody", {"policy": "prefix"}, NotFound, "no model 'nobody'"),
]


def test_what_makes_no_sense_is_named(models: dict[str, str], admin: Actor) -> None:
    rules.set_rules(admin, PROJECT, "both", canary(1, 1))
    deploy(admin, "abroad", project_id=projects.create_project(admin, "Other").id)
    deploy(admin, "looping")
    small = Rules(targets=(TargetRule(model="small"),))
    rules.set_rules(admin, PROJECT, "chat", small)
    rules.set_rules(admin, PROJECT, "looping", Rules(fallbacks=("chat",)))
    for model, wanted, error, words in _REFUSED:
        with pytest.raises(error, match=words):
            rules.propose(admin, PROJECT, model, rules.read(wanted))
    assert rules.current(admin, PROJECT, "chat") == small


def test_a_target_stays_while_its_route_uses_it_and_names_are_taken_once(
    models: dict[str, str], admin: Actor
) -> None:
    serve_mini(admin)
    targets = (TargetRule(model="large"), TargetRule(model="mini"))
    rules.set_rules(admin, PROJECT, "both", Rules(targets=targets))
    rules.set_rules(admin, PROJECT, "small", Rules(fallbacks=("both",)))
    with pytest.raises(Conflict, match="target of both"):
        deployments.delete(admin, models["large"])
    with pytest.raises(Conflict, match="target of both"):
        hosted.withdraw(admin, hosted.find_hosted(admin, PROJECT, "mini").id)
    with pytest.raises(Conflict, match="already a route 'both'"):
        deploy(admin, "both")
    with pytest.raises(Conflict, match="small falls back to both"):
        rules.remove(admin, PROJECT, "both")
    with pytest.raises(InvalidInput, match="goes with it"):
        rules.remove(admin, PROJECT, "small")
    rules.set_rules(admin, PROJECT, "small", Rules())
    rules.remove(admin, PROJECT, "both")
    deployments.delete(admin, models["large"])
    deploy(admin, "both")


def test_a_hosted_model_is_asked_for_its_health_only_when_told_to(
    models: dict[str, str], admin: Actor
) -> None:
    serve_mini(admin)
    assert table()["mini"].replicas[0].health_path == ""
    rules.set_rules(admin, PROJECT, "mini", Rules(health_path="/health"))
    assert table()["mini"].replicas[0].health_path == "/health"
    with pytest.raises(InvalidInput, match="health_path"):
        rules.read({"health_path": "/a\r\nX: b"})


def test_live_state_is_summed_over_workers(
    models: dict[str, str], admin: Actor, data_dir: Path
) -> None:
    rules.set_rules(admin, PROJECT, "both", canary(9, 1))
    path = routing.table_path()
    published = route_table.decode(path.read_bytes())
    routes = [
        msgspec.structs.replace(each, replicas=[Replica(id="rep_1", base_url="http://x")])
        if each.model == "large"
        else each
        for each in published.routes
    ]
    path.write_bytes(route_table.encode(msgspec.structs.replace(published, routes=routes)))
    empty = live.get_route(admin, PROJECT, "both")
    assert (empty.kind, empty.workers, empty.targets[0].replicas[0].seen) == ("targets", 0, False)
    assert [target.share for target in empty.targets] == [0.9, 0.1]

    now_s = clock.unix_s()
    folder = data_dir / gateway_state.FOLDER_NAME
    folder.mkdir()
    for number, age_s in enumerate((0.0, 1.0, gateway_state.STALE_S + 1)):
        state = WorkerState(
            worker_id=f"gww_{number}",
            at_unix_s=now_s - age_s,
            started_unix_s=now_s - 100,
            route_table_version=published.version,
            in_flight=2,
            waiting=0,
            replicas=[
                ReplicaState(
                    id="rep_1", in_flight=2, requests=10 * (number + 1), failures=1,
                    latency_ms=100.0 * (number + 1), breaker="half_open" if number else "closed",
                )
            ],
            targets=[
                TargetState(
                    project_id=PROJECT, model="both", deployment_id=models["large"], requests=5
                ),
                TargetState(
                    project_id=PROJECT, model="large", deployment_id=models["large"], requests=1
                ),
            ],
        )  # fmt: skip
        (folder / f"gww_{number}.json").write_bytes(msgspec.json.encode(state))
    (folder / "gww_torn.json").write_bytes(b"{")
    found = {view.model: view for view in live.list_routes(admin, PROJECT)}
    target = found["both"].targets[0]
    assert (found["both"].workers, target.requests, target.in_flight) == (2, 10, 4)
    replica = target.replicas[0]
    assert (replica.requests, replica.failures, replica.breaker) == (30, 2, "half_open")
    assert replica.latency_ms == pytest.approx((10 * 100 + 20 * 200) / 30)
    assert found["large"].targets[0].requests == 2
    assert found["small"].kind == "deployment"


def test_the_command_line(models: dict[str, str]) -> None:
    run = CliRunner().invoke
    made = run(
        app,
        ["routes", "set", "chat", "--target", "large=90", "--target", "small=10@1", "--yes"],
    )
    assert made.exit_code == 0, made.output
    kept = run(app, ["routes", "set", "chat", "--split-by", "key", "--yes"])
    assert kept.exit_code == 0, kept.output
    listed = json.loads(run(app, ["routes", "list", "--json"]).output)
    route = next(each for each in listed if each["model"] == "chat")
    shown = [(each["model"], each["share"], each["priority"]) for each in route["targets"]]
    assert shown == [("large", 1.0, 0), ("small", 1.0, 1)]
    assert route["rules"]["split_by"] == "key"
    assert "large" in run(app, ["routes", "show", "chat"]).output
    assert "chat" in run(app, ["routes", "list"]).output
    assert run(app, ["routes", "remove", "chat", "--yes"]).exit_code == 0
    assert "chat" not in table()
    assert "large=90" in run(app, ["routes", "history", "chat"]).output
    assert run(app, ["routes", "roll-back", "chat"]).exit_code == 0
    assert "chat" in table()
    bad = run(app, ["routes", "set", "chat", "--target", "large=@", "--yes"])
    assert isinstance(bad.exception, InvalidInput)
