"""Use cases of deployments."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Unpack, cast

import psutil
from sqlalchemy.orm import Session

from core import jobs
from core.clusters import services as clusters
from core.clusters.schemas import THIS_MACHINE
from core.contracts.route_table import Capability
from core.deployments import crud, planning, workflows
from core.deployments.adapters import local
from core.deployments.models import Deployment, Replica
from core.deployments.schemas import (
    DeploymentRequest,
    DeploymentRoute,
    DeploymentView,
    EngineChanges,
    Fit,
    LogChunk,
    ReadyReplica,
    ReplicaView,
)
from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import Conflict, InvalidInput, NotFound
from core.registry import services as registry
from core.registry import versions
from core.registry.schemas import ModelView

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_names_taken: list[Callable[[Session, str, str], bool]] = []
_name_users: list[Callable[[Session, str, str], list[str]]] = []


def register_route_names(
    is_taken: Callable[[Session, str, str], bool],
    users: Callable[[Session, str, str], list[str]],
) -> None:
    """Let the routing above say which names its routes have, and which they send requests to.

    `is_taken(tx, project id, name)` says whether a route has this name; `users(…)` names the
    routes that have a deployment or hosted endpoint of this name as a target.
    """
    if is_taken not in _names_taken:
        _names_taken.append(is_taken)
        _name_users.append(users)


def suggest_name(actor: Actor, project_id: str, model: ModelView) -> str:
    """A free name for a deployment of `model`: `smollm2-135m-instruct`, `…-2`."""
    base = _as_name(model.name)[:50] or "model"
    taken = {deployment.name for deployment in list_deployments(actor, project_id)}
    number, name = 2, base
    with database.reading() as session:
        taken |= {row.name for row in crud.hosted(session, project_id)}
        while name in taken or any(each(session, project_id, name) for each in _names_taken):
            name, number = f"{base}-{number}", number + 1
    return name


def _as_name(text: str) -> str:
    """The nearest name that callers could use; "" where nothing is left of it."""
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:63].rstrip("-.")


def check_fit(actor: Actor, request: DeploymentRequest, *, replacing: str | None = None) -> Fit:
    """What the request becomes on this machine, and whether that fits now.

    Args:
        actor: Who asks.
        request: What to deploy.
        replacing: A deployment whose own memory counts as free (for edit and scale).

    Raises:
        InvalidInput: A number is out of its range, or the model cannot do the task.
    """
    actor.require("deployment:read", request.project_id)
    model = _usable_model(actor, request)
    reserved = _promised_bytes(replacing) - _own_bytes(replacing)
    return planning.plan(request, model, clusters.this_machine(), reserved)


def deploy(actor: Actor, request: DeploymentRequest) -> DeploymentView:
    """Place a model on this machine and start it; the job `deployment.bring_up` does the work.

    Raises:
        InvalidInput: A bad name or number, or the model cannot do the task.
        Conflict: The name is taken.
        NoCapacity: It does not fit; carries the numbers and the nearest fit.
    """
    actor.require("deployment:create", request.project_id)
    model = _usable_model(actor, request)
    versions.require_deployable(actor, request.project_id, model)
    fit = check_fit(actor, request)
    planning.require_fit(fit)
    row = planned_row(actor, request, model, fit)
    with database.transaction() as tx:
        require_free_name(tx, request.project_id, request.name)
        tx.add(row)
        _record(tx, actor, "created", row, model=model.name, replicas=fit.replicas)
        _bring_up(tx, actor, row)
    events.publish("deployments.changed")
    return get_deployment(actor, row.id)


def planned_row(actor: Actor, request: DeploymentRequest, model: ModelView, fit: Fit) -> Deployment:
    """The row of a new deployment, before anything of it runs."""
    return Deployment(
        id=ids.new_id("dep"),
        tenant_id=actor.tenant_id,
        project_id=request.project_id,
        cluster_id=THIS_MACHINE,
        name=request.name,
        model_id=model.id,
        model_version_id=model.version_id,
        model_name=model.name,
        task=planning.task_of(request, model),
        context_tokens=fit.context_tokens,
        slots=fit.slots,
        threads=fit.threads,
        requested=request.model_dump(include={"context_tokens", "slots", "threads"}),
        replica_bytes=fit.replica_bytes,
        desired_state="planned",
        desired_replicas=fit.replicas,
        generation=1,
        measured_since=clock.now(),
        state="planned",
        demo=False,
        created_by_name=actor.name,
        created_at=clock.now(),
        updated_at=clock.now(),
    )


def _usable_model(actor: Actor, request: DeploymentRequest) -> ModelView:
    model = versions.pinned(actor, request.model_id, request.model_version_id)
    if model.project_id not in (None, request.project_id):
        raise NotFound(f"There is no model {request.model_id} in this project.")
    if not str(model.path).lower().endswith(".gguf"):
        raise InvalidInput(
            f"{model.name} is not in a form that llama.cpp runs on this machine.",
            remedy="Add a GGUF file of it; its publisher or others often have one.",
        )
    task = planning.task_of(request, model)
    if not planning.capabilities(task, model):
        raise InvalidInput(
            f"{model.name} cannot do {task}: it can do {', '.join(model.capabilities)}.",
            remedy="Choose another model, or another task.",
        )
    return model


def _bring_up(tx: Session, actor: Actor, row: Deployment) -> str:
    """Queue the job, in the transaction that plans the deployment: neither is without the other."""
    row.job_id = jobs.enqueue(
        tx,
        actor,
        workflows.bring_up,
        project_id=row.project_id,
        title=f"Deploy {row.name}",
        subject=f"deployment:{row.id}",
        arguments={"deployment_id": row.id},
    )
    return row.job_id


def start(actor: Actor, deployment_id: str) -> str:
    """Start a stopped or failed deployment; the id of its job. NoCapacity when it cannot fit."""
    view = _changeable(actor, deployment_id, "deployment:update")
    if view.desired_state == "running" and view.state != "failed":
        raise Conflict(f"{view.name} is {view.state} already.")
    request = _request_of(view)
    versions.require_deployable(actor, view.project_id, _usable_model(actor, request))
    planning.require_fit(check_fit(actor, request, replacing=deployment_id))
    with database.transaction() as tx:
        row = _row(actor, tx, deployment_id)
        # A failed one may still be tried again by the reconciler: this starts afresh.
        row.desired_state, row.state, row.reason, row.failure = "planned", "planned", None, None
        _record(tx, actor, "started", row)
        return _bring_up(tx, actor, row)


def stop(actor: Actor, deployment_id: str) -> None:
    """Stop a deployment: no new requests, those in flight are finished."""
    view = _changeable(actor, deployment_id, "deployment:update", busy_ok=True)
    _cancel_job(actor, view)
    with database.transaction() as tx:
        row = _row(actor, tx, deployment_id)
        row.desired_state, row.reason, row.failure = "stopped", None, None
        row.state = "stopping" if view.replicas else "stopped"
        _record(tx, actor, "stopped", row)
    _wanted()


def restart(actor: Actor, deployment_id: str) -> None:
    """Replace every replica, one after the other."""
    view = _changeable(actor, deployment_id, "deployment:update")
    if view.desired_state != "running":
        raise Conflict(f"{view.name} is {view.state}.", remedy="Start it instead.")
    with database.transaction() as tx:
        row = _row(actor, tx, deployment_id)
        row.generation += 1
        _record(tx, actor, "restarted", row)
    _wanted()


def scale(actor: Actor, deployment_id: str, replicas: int) -> None:
    """Change the number of replicas, without touching those that stay."""
    view = _changeable(actor, deployment_id, "deployment:update")
    request = _request_of(view).model_copy(update={"replicas": replicas})
    fit = check_fit(actor, request, replacing=deployment_id)
    planning.require_fit(fit)
    with database.transaction() as tx:
        row = _row(actor, tx, deployment_id)
        _record(tx, actor, "scaled", row, before=row.desired_replicas, after=replicas)
        row.measured_since = clock.now()
        row.desired_replicas = fit.replicas
    _wanted()


def edit(
    actor: Actor, deployment_id: str, *, name: str | None = None, **changes: Unpack[EngineChanges]
) -> None:
    """Rename a deployment, or change the engine's settings; what is not given stays.

    New settings restart a running deployment, one replica at a time. A new name does not: callers
    use it from now on and the old one is gone; prices and keys that name the old one stay so.

    Args:
        actor: Who asks.
        deployment_id: Which deployment.
        name: The new name; None keeps it.
        changes: Numbers, or None for what Bud shall choose from the machine and the model.

    Raises:
        InvalidInput: A bad name or number.
        Conflict: The name is taken.
        NoCapacity: It does not fit; carries the numbers and the nearest fit.
    """
    view = _changeable(actor, deployment_id, "deployment:update")
    asked = view.requested | cast(dict[str, int | None], changes)
    fit = None
    if asked != view.requested:
        fit = check_fit(actor, _request_of(view).model_copy(update=asked), replacing=deployment_id)
        planning.require_fit(fit)
    with database.transaction() as tx:
        row = _row(actor, tx, deployment_id)
        if name is not None and name != row.name:
            require_free_name(tx, row.project_id, name)
            require_unused_name(tx, row.project_id, row.name)
            _record(tx, actor, "renamed", row, new_name=name)
            row.name = name
        if fit is not None:
            _take(row, fit, asked)
            _record(tx, actor, "edited", row, **changes)
    _wanted()


def _take(row: Deployment, fit: Fit, asked: dict[str, int | None]) -> None:
    before = (row.context_tokens, row.slots, row.threads)
    row.context_tokens, row.slots, row.threads = fit.context_tokens, fit.slots, fit.threads
    row.replica_bytes, row.requested = fit.replica_bytes, asked
    if before != (fit.context_tokens, fit.slots, fit.threads):
        row.generation += 1
        # What was measured until now was measured with other settings.
        row.measured_since = clock.now()


def require_unused_name(tx: Session, project_id: str, name: str) -> None:
    """Raises Conflict: a route sends requests to what has this name."""
    users = [user for find in _name_users for user in find(tx, project_id, name)]
    if users:
        raise Conflict(
            f"{name} is a target of {', '.join(users)}.",
            remedy=f"Take it out of the route first: on the page Gateway, {users[0]}, Edit; or "
            f"bud routes set {users[0]} --target …",
        )


def require_good_name(name: str, what: str = "deployment") -> None:
    """Raises InvalidInput: callers cannot use it as a model name. `what` is what has the name."""
    if not _NAME.fullmatch(name):
        near = _as_name(name)
        raise InvalidInput(
            f"A {what}'s name has 1 to 63 small letters, digits, dots and dashes, "
            "and begins and ends with a letter or digit.",
            value=name,
            remedy=f"Write it as {near}."
            if near
            else "Give the name that callers shall use as the model, such as smollm2-135m.",
        )


def check_name(actor: Actor, project_id: str, name: str) -> None:
    """Whether a new deployment of a project may have a name. Raises as `deploy` does."""
    actor.require("deployment:read", project_id)
    with database.reading() as session:
        require_free_name(session, project_id, name)


def require_free_name(tx: Session, project_id: str, name: str) -> None:
    """Raises InvalidInput (a bad name) or Conflict (something callers can name has it)."""
    require_good_name(name)
    if any(is_taken(tx, project_id, name) for is_taken in _names_taken):
        raise Conflict(
            f"There is already a route {name!r} in this project.",
            remedy=f"Choose another name, such as {name}-2.",
        )
    hosted = crud.hosted_by_name(tx, project_id, name) is not None
    if hosted or crud.by_name(tx, project_id, name) is not None:
        what = "hosted endpoint" if hosted else "deployment"
        raise Conflict(
            f"There is already a {what} {name!r} in this project.",
            remedy=f"Choose another name, such as {name}-2.",
        )


def copy(actor: Actor, deployment_id: str, name: str) -> DeploymentView:
    """Deploy the same again under another name."""
    view = get_deployment(actor, deployment_id)
    return deploy(actor, _request_of(view).model_copy(update={"name": name}))


def delete(actor: Actor, deployment_id: str) -> None:
    """Stop a deployment and forget it; its requests stay in the metrics.

    Raises Conflict: a route has it as a target.
    """
    view = _changeable(actor, deployment_id, "deployment:delete", busy_ok=True)
    with database.reading() as session:
        require_unused_name(session, view.project_id, view.name)
    _cancel_job(actor, view)
    with database.transaction() as tx:
        row = _row(actor, tx, deployment_id)
        row.desired_state, row.state = "deleted", "deleting"
        _record(tx, actor, "deleted", row)
    _wanted()


def list_deployments(actor: Actor, project_id: str) -> list[DeploymentView]:
    """The deployments of a project, by name."""
    actor.require("deployment:read", project_id)
    with database.reading() as session:
        rows = crud.deployments(session, project_id)
        rows = [row for row in rows if row.tenant_id == actor.tenant_id]
        replicas = crud.replicas(session, [row.id for row in rows])
    return [_view(row, replicas[row.id]) for row in rows]


def get_deployment(actor: Actor, deployment_id: str) -> DeploymentView:
    """One deployment. NotFound when the actor cannot see it."""
    with database.reading() as session:
        row = _row(actor, session, deployment_id)
        return _view(row, crud.replicas(session, [deployment_id])[deployment_id])


def find_deployment(actor: Actor, project_id: str, name: str) -> DeploymentView:
    """A deployment of the project, by id or name."""
    known = list_deployments(actor, project_id)
    for view in known:
        if name in (view.id, view.name):
            return view
    names = ", ".join(view.name for view in known) or "none yet"
    raise NotFound(f"There is no deployment {name!r}.", remedy=f"There are: {names}.")


def logs(
    actor: Actor, deployment_id: str, replica_index: int, *, offset: int = -1, limit: int = 64_000
) -> LogChunk:
    """Lines of a replica's log from byte `offset` on; -1 gives the end of it."""
    view = get_deployment(actor, deployment_id)
    path = local.log_path(view.id, replica_index)
    if not path.exists():
        return LogChunk(replica_index=replica_index, lines=[], next_offset=0)
    size = path.stat().st_size
    if offset < 0 or offset > size:
        offset = max(size - limit, 0)
    with path.open("rb") as file:
        file.seek(offset)
        content = file.read(limit)
    # A line that is still being written is given with the next piece.
    whole = content[: content.rfind(b"\n") + 1]
    return LogChunk(
        replica_index=replica_index,
        lines=whole.decode("utf-8", "replace").splitlines(),
        next_offset=offset + len(whole),
    )


def routes() -> list[DeploymentRoute]:
    """Every deployment as the route table needs it."""
    with database.reading() as session:
        rows = [row for row in crud.deployments(session) if row.desired_state != "deleted"]
        replicas = crud.replicas(session, [row.id for row in rows])
    return [_route(row, replicas[row.id]) for row in rows]


def capabilities(actor: Actor, view: DeploymentView) -> list[Capability]:
    """What callers can ask of a deployment."""
    try:
        model = versions.pinned(actor, view.model_id, view.model_version_id)
    except (NotFound, Conflict):  # its entry is gone, or has no files now
        model = None
    return planning.capabilities(view.task, model)


def _route(row: Deployment, replicas: list[Replica]) -> DeploymentRoute:
    view = _view(row, [])
    return DeploymentRoute(
        deployment_id=row.id,
        tenant_id=row.tenant_id,
        project_id=row.project_id,
        name=row.name,
        capabilities=capabilities(Actor.system(row.tenant_id), view),
        context_tokens=row.context_tokens,
        state=view.state,
        created_at=row.created_at,
        replicas=[
            ReadyReplica(
                id=replica.id, port=replica.port, slots=row.slots, sealed_key=replica.sealed_key
            )
            for replica in replicas
            if replica.state == "ready" and replica.port is not None
        ],
    )


def _changeable(
    actor: Actor, deployment_id: str, permission: str, *, busy_ok: bool = False
) -> DeploymentView:
    view = get_deployment(actor, deployment_id)
    actor.require(permission, view.project_id)
    if view.desired_state == "deleted":
        raise Conflict(f"{view.name} is being deleted.")
    if not busy_ok and jobs.find_active(actor, view.project_id, f"deployment:{deployment_id}"):
        raise Conflict(
            f"{view.name} is being brought up.", remedy="Wait for its job, or cancel it."
        )
    return view


def _cancel_job(actor: Actor, view: DeploymentView) -> None:
    job = jobs.find_active(actor, view.project_id, f"deployment:{view.id}")
    if job is not None:
        # It may have ended in between.
        with suppress(Conflict):
            jobs.cancel(actor, job.id)


def _row(actor: Actor, tx: Session, deployment_id: str) -> Deployment:
    row = crud.deployment(tx, deployment_id)
    visible = (
        row is not None
        and row.tenant_id == actor.tenant_id
        and actor.may("deployment:read", row.project_id)
    )
    if row is None or not visible:
        raise NotFound(
            f"There is no deployment {deployment_id}.", remedy="See the Deployments page."
        )
    return row


def _request_of(view: DeploymentView) -> DeploymentRequest:
    return DeploymentRequest(
        project_id=view.project_id,
        name=view.name,
        model_id=view.model_id,
        model_version_id=view.model_version_id,
        task=view.task,
        context_tokens=view.context_tokens,
        slots=view.slots,
        threads=view.threads,
        replicas=view.desired_replicas,
    )


def _view(row: Deployment, replicas: list[Replica]) -> DeploymentView:
    names = set(DeploymentView.model_fields) - {"replicas", "ready_replicas", "planned_bytes"}
    columns: dict[str, Any] = {name: getattr(row, name) for name in names}
    return DeploymentView.model_validate(
        {
            **columns,
            "planned_bytes": row.replica_bytes * row.desired_replicas,
            "ready_replicas": sum(replica.state == "ready" for replica in replicas),
            "replicas": [_replica_view(replica) for replica in replicas],
        }
    )


def _replica_view(replica: Replica) -> ReplicaView:
    names = set(ReplicaView.model_fields) - {"index", "memory_bytes"}
    columns: dict[str, Any] = {name: getattr(replica, name) for name in names}
    return ReplicaView.model_validate(
        {
            **columns,
            "index": replica.position,
            "memory_bytes": _resident_bytes(replica.pid),
        }
    )


def _resident_bytes(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def _promised_bytes(but_for: str | None) -> int:
    """Memory that other deployments may still take: planned, but not yet held."""
    with database.reading() as session:
        rows = [
            row
            for row in crud.deployments(session)
            if row.id != but_for and row.desired_state in ("planned", "running")
        ]
        replicas = crud.replicas(session, [row.id for row in rows])
    promised = 0
    for row in rows:
        held = sum(local.held_bytes(replica.pid) for replica in replicas[row.id])
        promised += max(row.replica_bytes * row.desired_replicas - held, 0)
    return promised


def _own_bytes(deployment_id: str | None) -> int:
    """Memory that a deployment's servers hold now, which its successor can use."""
    if deployment_id is None:
        return 0
    with database.reading() as session:
        replicas = crud.replicas(session, [deployment_id])[deployment_id]
    return sum(local.held_bytes(replica.pid) for replica in replicas)


def _record(tx: Session, actor: Actor, verb: str, row: Deployment, **details: object) -> None:
    audit.record(
        tx,
        actor,
        f"deployment.{verb}",
        f"deployment:{row.id}",
        project_id=row.project_id,
        name=row.name,
        **details,
    )


def _wanted() -> None:
    events.publish("deployments.changed")
    events.publish("deployments.wanted")


def _users_of_model(model_id: str) -> list[str]:
    with database.reading() as session:
        rows = crud.of_model(session, model_id)
    return [f"deployment {row.name}" for row in rows]


registry.register_usage_check(_users_of_model)
