"""Use cases of replays: bring a trace, start a replay as a job, look at its result."""

from __future__ import annotations

from core.jobs import services as jobs
from core.kernel import audit, clock, database, ids
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, NotFound
from core.projects import services as projects
from core.simulation import crud, kept_traces, questions, replay, services, traces, workflows
from core.simulation.models import SimulationRun
from core.simulation.replay_requests import ReplayRequest, ReplayView, TraceView
from core.simulation.traces import Trace

KIND = "replay"


def list_traces(actor: Actor, project_id: str) -> list[TraceView]:
    """Every trace that can be replayed in a project, shipped ones first."""
    actor.require("simulation:read", project_id)
    return [
        _trace_view(trace_id, kept_traces.find(project_id, trace_id))
        for trace_id in (*traces.SHIPPED, *kept_traces.kept(project_id))
    ]


def add_trace(actor: Actor, project_id: str, name: str, content: bytes) -> TraceView:
    """Keep a person's CSV or JSON lines. Raises as `traces.read` does."""
    return _keep(actor, project_id, traces.read(content, name.strip()[:80] or "trace"))


def add_synthetic_trace(actor: Actor, project_id: str, trace: Trace) -> TraceView:
    """Keep a trace that `traces.synthetic` made."""
    return _keep(actor, project_id, trace)


def _keep(actor: Actor, project_id: str, trace: Trace) -> TraceView:
    actor.require("simulation:create", project_id)
    # Its id becomes a folder: it must be one that exists.
    projects.get_project(actor, project_id)
    trace_id = kept_traces.keep(project_id, trace)
    with database.transaction() as tx:
        audit.record(
            tx, actor, "trace.added", f"trace:{trace_id}", project_id=project_id, name=trace.name
        )
    return _trace_view(trace_id, trace)


def delete_trace(actor: Actor, project_id: str, trace_id: str) -> None:
    """Delete a trace that somebody brought. NotFound when there is none."""
    actor.require("simulation:delete", project_id)
    kept_traces.remove(project_id, trace_id)
    with database.transaction() as tx:
        audit.record(tx, actor, "trace.deleted", f"trace:{trace_id}", project_id=project_id)


def start(actor: Actor, project_id: str, request: ReplayRequest) -> ReplayView:
    """Start a replay as a job.

    Raises:
        InvalidInput: A configuration that no engine would start, a policy, a rate or a
            window out of range.
        NotFound: An unknown model, device or trace, with the nearest names.
    """
    actor.require("simulation:create", project_id)
    at = services.pairing(actor, request.query)
    reason = questions.impossible(request.query, at)
    if reason:
        raise InvalidInput(f"It cannot run: {reason}.", remedy="Choose another configuration.")
    replay.replica_range(request.policy, request.query.replicas)
    trace = request.cut(kept_traces.find(project_id, request.trace))
    # The job must find the model that this person means; an instance keeps its name and price.
    query = services.canonical(actor, request.query)
    request = request.model_copy(update={"query": query})
    layout = questions.layout_name(query)
    row = SimulationRun(
        id=ids.new_id("run"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        kind=KIND,
        title=f"{trace.name} over {at.model_name}, {layout} on {at.device.name}"[:200],
        request=request.model_dump(mode="json"),
        created_by_name=actor.name,
        created_at=clock.now(),
    )
    with database.transaction() as tx:
        row.job_id = jobs.enqueue(
            tx,
            actor,
            workflows.replay_trace,
            project_id=project_id,
            title=f"Replay {row.title}"[:200],
            subject=f"run:{row.id}",
            arguments={"run_id": row.id},
        )
        tx.add(row)
        audit.record(
            tx, actor, "replay.started", f"run:{row.id}", project_id=project_id, title=row.title
        )
    return _view(row)


def get(actor: Actor, run_id: str) -> ReplayView:
    """A replay, with its result once there is one. NotFound when the actor cannot read it."""
    with database.reading() as session:
        return _view(_readable(actor, crud.run(session, run_id), run_id))


def list_replays(actor: Actor, project_id: str, *, limit: int = 50) -> list[ReplayView]:
    """The newest replays of a project."""
    actor.require("simulation:read", project_id)
    with database.reading() as session:
        rows = crud.runs(session, actor.tenant_id, project_id, KIND, limit)
        return [_view(row) for row in rows]


def delete(actor: Actor, run_id: str) -> None:
    """Delete a replay and its result; its job, if it still works, then ends with an error."""
    with database.transaction() as tx:
        row = _readable(actor, crud.run(tx, run_id), run_id)
        actor.require("simulation:delete", row.project_id)
        tx.delete(row)
        audit.record(
            tx, actor, "replay.deleted", f"run:{row.id}", project_id=row.project_id, title=row.title
        )


def _readable(actor: Actor, row: SimulationRun | None, run_id: str) -> SimulationRun:
    if (
        row is None
        or row.kind != KIND
        or row.tenant_id != actor.tenant_id
        or not actor.may("simulation:read", row.project_id)
    ):
        raise NotFound(f"There is no replay {run_id[:60]}.", remedy="It may have been deleted.")
    return row


def _view(row: SimulationRun) -> ReplayView:
    return ReplayView.model_validate({name: getattr(row, name) for name in ReplayView.model_fields})


def _trace_view(trace_id: str, trace: Trace) -> TraceView:
    return TraceView(
        id=trace_id,
        name=trace.name,
        requests=len(trace),
        duration_s=trace.duration_s,
        mean_input_tokens=float(trace.input_tokens.mean()),
        mean_output_tokens=float(trace.output_tokens.mean()),
        source=trace.source,
    )
