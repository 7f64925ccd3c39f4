"""Load and remove the demo project. Its requests go the way real ones go: as a segment of facts."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from core.access import services as access
from core.accounts import api_keys, removal
from core.accounts import services as accounts
from core.batches import services as batches
from core.captures import services as captures
from core.demo import traffic
from core.demo.schemas import DemoData
from core.deployments import demo as demo_deployments
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRequest
from core.guardrails import services as guardrails
from core.kernel import clock
from core.kernel.actor import Actor, Role
from core.kernel.errors import Unavailable
from core.kernel.settings import settings
from core.limits import services as limits
from core.metrics import segments
from core.metrics import services as metrics
from core.metrics.schemas import Window
from core.playground import demo as demo_chats
from core.playground import services as playground
from core.prices import services as prices
from core.projects import services as projects
from core.projects.schemas import ProjectView
from core.registry import services as registry
from core.response_cache import services as response_cache
from core.simulation import services as simulation

PROJECT_NAME = "Demo"
_PEOPLE: tuple[tuple[str, str, Role], ...] = (
    ("ines@demo.example", "Inés (demo)", "admin"),
    ("tom@demo.example", "Tom (demo)", "member"),
    ("yuki@demo.example", "Yuki (demo)", "member"),
    ("amara@demo.example", "Amara (demo)", "member"),
)
_INGEST_TIMEOUT_S = 60.0
# The model whose first attempt to start is said to have failed.
_FAILED_FIRST = 2


def load(actor: Actor) -> DemoData:
    """Make the demo project: people, keys, prices, deployments and thirty days of requests.

    Does nothing when it is there; one that an earlier, killed load left half done is made anew.

    Raises:
        Conflict: A project named "Demo" exists that is not demo data.
    """
    actor.require("project:create")
    found = _find(actor)
    if found is not None:
        held = _held(actor, found)
        if held.requests:
            return held
        remove(actor)
    project = projects.create_project(actor, PROJECT_NAME, demo=True)
    owner = _add_people(actor, project.id)
    key_ids = {
        caller.key: api_keys.create_key(owner, project.id, f"{caller.key} (demo)").key.id
        for caller in traffic.CALLERS
    }
    end = clock.now()
    _set_prices(actor, project.id, end - timedelta(days=traffic.DAYS + 1))
    _deploy(owner, project.id, end - timedelta(days=traffic.DAYS))
    _chat(actor, project.id, end - timedelta(days=2))
    # Last and in one segment: either all requests are there or none.
    facts = traffic.requests(end, project.id, key_ids)
    path = segments.write(settings().data_dir, f"demo-{project.id}", facts)
    _wait_until_ingested(actor, path.name)
    return _held(actor, project)


def remove(actor: Actor) -> DemoData:
    """Remove the demo project with everything in it; what it held.

    Raises:
        Conflict: A deployment in it runs, or is a person's own.
    """
    actor.require("project:delete")
    project = _find(actor)
    if project is None:
        return DemoData(project_id="", users=0, keys=0, deployments=0, requests=0)
    demo_deployments.require_idle(actor, project.id)
    _wait_until_ingested(actor, f"demo-{project.id}.ndjson")
    requests = metrics.forget_project(actor, project.id)
    playground.forget_project(actor, project.id)
    prices.forget_project(actor, project.id)
    limits.forget_project(actor, project.id)
    access.forget_project(actor, project.id)
    guardrails.forget_project(actor, project.id)
    captures.forget_project(actor, project.id)
    batches.forget_project(actor, project.id)
    response_cache.forget_project(actor, project.id)
    simulation.forget_project(actor, project.id)
    removed = demo_deployments.forget_project(actor, project.id)
    registry.forget_project(actor, project.id)
    keys, users = removal.forget_project(actor, project.id)
    projects.delete_demo_project(actor, project.id)
    return DemoData(
        project_id=project.id, users=users, keys=keys, deployments=removed, requests=requests
    )


def is_loaded(actor: Actor) -> bool:
    """Whether there is a demo project that the actor can see."""
    return _find(actor) is not None


def _find(actor: Actor) -> ProjectView | None:
    return next((project for project in projects.list_projects(actor) if project.demo), None)


def _held(actor: Actor, project: ProjectView) -> DemoData:
    ever = Window(start=datetime.fromtimestamp(0, UTC), end=clock.now() + timedelta(days=1))
    people = [user for user in accounts.list_users(actor) if project.id in user.projects]
    return DemoData(
        project_id=project.id,
        users=len(people),
        keys=len(api_keys.list_keys(actor, project.id)),
        deployments=len(deployments.list_deployments(actor, project.id)),
        requests=metrics.summary(actor, project.id, ever).requests,
    )


def _add_people(actor: Actor, project_id: str) -> Actor:
    """Add the people; nobody knows their passwords. Gives back the one who makes the keys."""
    made = [
        accounts.add_user(actor, email, name, "member", project_id, demo=True).user
        for email, name, _ in _PEOPLE
    ]
    for user, (_, _, role) in zip(made, _PEOPLE, strict=True):
        if role != "member":
            projects.set_member(actor, project_id, user.id, role)
    owner = made[0]
    return Actor(owner.id, owner.email, actor.tenant_id, "member", {project_id: "admin"})


def _set_prices(actor: Actor, project_id: str, since: datetime) -> None:
    for model in traffic.MODELS:
        prices.set_token_price(
            actor,
            project_id,
            model.name,
            input_usd_per_million_tokens=model.input_usd,
            output_usd_per_million_tokens=model.output_usd,
            valid_from=since,
        )


def _deploy(owner: Actor, project_id: str, since: datetime) -> None:
    """Deploy the starter model under the name of each made-up one; none of them runs."""
    starter = registry.add_starter(Actor.system(owner.tenant_id))
    for number, model in enumerate(traffic.MODELS):
        request = DeploymentRequest(
            project_id=project_id,
            name=model.name,
            model_id=starter.id,
            task="chat" if model.output_tokens else "embedding",
        )
        demo_deployments.add(
            owner,
            request,
            starter,
            deployment_id=model.deployment_id,
            since=since + timedelta(minutes=7 * number),
            failed_first=number == _FAILED_FIRST,
        )


def _chat(actor: Actor, project_id: str, at: datetime) -> None:
    """A saved chat for each admin: a chat is seen by nobody but its owner."""
    models = (traffic.MODELS[0].name, traffic.MODELS[2].name)
    for user in accounts.list_users(actor):
        if user.role == "admin" and not user.demo:
            owner = Actor(user.id, user.email, actor.tenant_id, "admin")
            demo_chats.add(owner, project_id, models, at)


def _wait_until_ingested(actor: Actor, segment_name: str) -> None:
    give_up_s = clock.monotonic_s() + _INGEST_TIMEOUT_S
    while (segments.folder(settings().data_dir) / segment_name).exists():
        metrics.ingest_state(actor)  # without a running app, this call is what ingests
        if clock.monotonic_s() > give_up_s:
            raise Unavailable(
                "The demo's requests are on disk but were not ingested in time.",
                remedy="Look into logs/app.log in the data folder, then load it again.",
            )
        time.sleep(0.1)
