"""The job that brings a deployment up."""

from __future__ import annotations

import time
from typing import cast

from core.deployments import crud
from core.deployments.adapters import engine
from core.deployments.adapters.preflight import run_preflight
from core.deployments.models import Deployment
from core.deployments.schemas import Task
from core.jobs import Progress, Run, Step, workflow
from core.kernel import database, events
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict, UpstreamFailed
from core.kernel.keys import keyring
from core.kernel.settings import settings
from core.registry import services as registry
from core.registry import versions

_LOAD_TIMEOUT_S = 600.0
_POLL_S = 0.2


def _cancelled(deployment_id: str) -> None:
    _set(deployment_id, desired_state="stopped", state="stopping", failure=None)


@workflow(
    "deployment.bring_up",
    steps=(
        Step("preflight", "Check this machine", typical_s=6),
        Step("start", "Start the model servers", typical_s=1),
        Step("load", "Load the model", typical_s=4),
        Step("check", "Ask for a first answer", typical_s=1),
        Step("publish", "Publish the route", typical_s=0.5),
    ),
    on_cancel=_cancelled,
)
def bring_up(run: Run, deployment_id: str) -> None:
    """Bring a deployment from its row to its first answer."""
    try:
        run.step("preflight", _preflight, deployment_id)
        run.step("start", _start, deployment_id)
        run.step("load", _load, deployment_id)
        run.step("check", _check, deployment_id)
        run.step("publish", _publish, deployment_id)
    except BudError as error:
        _set(
            deployment_id,
            desired_state="stopped",
            state="failed",
            reason=str(error),
            failure=str(error),
        )
        raise


def _get(deployment_id: str) -> Deployment:
    with database.reading() as session:
        row = crud.deployment(session, deployment_id)
    if row is None or row.desired_state == "deleted":
        raise Conflict("The deployment was deleted while it was brought up.")
    return row


def _set(deployment_id: str, **values: str | None) -> None:
    with database.transaction() as tx:
        row = crud.deployment(tx, deployment_id)
        if row is None or row.desired_state == "deleted":
            return
        for name, value in values.items():
            setattr(row, name, value)
    events.publish("deployments.wanted")
    events.publish("deployments.changed")


def _preflight(progress: Progress, deployment_id: str) -> None:
    row = _get(deployment_id)
    model = versions.pinned(Actor.system(row.tenant_id), row.model_id, row.model_version_id)
    path = registry.local_path(progress, model)
    variables = {
        "model_path": path,
        # The size is that of all parts; of a model in several only the first file is looked at.
        "model_bytes": 0 if "-of-" in path else model.size_bytes,
        "needed_memory_mb": row.replica_bytes * row.desired_replicas // 1_000_000,
        "data_dir": str(settings().data_dir),
        "needed_disk_mb": 100,
    }
    run_preflight(progress, settings().data_dir / "ansible" / progress.job_id, variables)


def _start(progress: Progress, deployment_id: str) -> None:
    row = _get(deployment_id)
    progress.log(f"{row.desired_replicas} × {row.slots} slots of {row.context_tokens} tokens")
    _set(deployment_id, desired_state="running", state="starting", reason=None, failure=None)


def _load(progress: Progress, deployment_id: str) -> None:
    """Wait until every replica answers; the reconciler starts them."""
    deadline_s = time.monotonic() + _LOAD_TIMEOUT_S
    while time.monotonic() < deadline_s:
        row = _get(deployment_id)
        with database.reading() as session:
            replicas = crud.replicas(session, [deployment_id])[deployment_id]
        ready = sum(replica.state == "ready" for replica in replicas)
        progress.update(
            ready / row.desired_replicas, f"{ready} of {row.desired_replicas} replicas answer"
        )
        if ready >= row.desired_replicas:
            return
        if row.desired_state != "running":
            raise Conflict("The deployment was stopped while it was brought up.")
        if row.state == "failed":
            raise UpstreamFailed(
                f"The model server ends as soon as it starts: {row.reason}",
                remedy="Read the replica's log on the deployment's page; "
                "the file may be broken, or need a newer engine.",
            )
        progress.sleep(_POLL_S)
    raise UpstreamFailed(
        f"The model did not load within {_LOAD_TIMEOUT_S:.0f} s.",
        remedy="Read the replica's log on the deployment's page.",
    )


def _check(progress: Progress, deployment_id: str) -> None:
    row = _get(deployment_id)
    with database.reading() as session:
        replicas = crud.replicas(session, [deployment_id])[deployment_id]
    for replica in replicas:
        if replica.state != "ready" or replica.port is None:
            continue
        credential = keyring().open(replica.sealed_key, context=f"replica:{replica.id}")
        said = engine.check_answer(replica.port, credential, cast(Task, row.task))
        progress.log(f"replica {replica.position} gave {said}")


def _publish(progress: Progress, deployment_id: str) -> None:
    row = _get(deployment_id)
    events.publish("deployments.changed")
    progress.log(f"callers reach it as model {row.name!r}")
