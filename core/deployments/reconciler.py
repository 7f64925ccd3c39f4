"""Makes what runs on this machine what the deployments want.

One thread in the app. Twice a second it compares rows with processes: it adopts servers that an
earlier app started, starts what is missing, replaces what is of an old generation, ends what
nobody wants, and writes down what it sees. It is the only writer of replica rows.
"""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import IO, cast

import psutil

from core.deployments import crud, server_records
from core.deployments.adapters import local
from core.deployments.adapters.engine import EngineClient
from core.deployments.model_server import ServerConfig
from core.deployments.models import Deployment, Replica
from core.deployments.server_records import ServerRecord
from core.deployments.states import DesiredState, ReplicaState, derive
from core.kernel import clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.errors import BudError, Conflict
from core.kernel.keys import keyring
from core.kernel.settings import settings
from core.registry import versions

log = logging.getLogger(__name__)

_TICK_S = 0.5
_HEALTH_EVERY_S = 2.0
# A server with hundreds of requests may not get to `/health` for a while; it hangs when it also
# computes nothing in all that time.
_HANGS_AFTER_S = 30.0
_BUSY_CPU_S = 0.5
_LOG_CHECK_S = 30.0
# The gateway takes a new route table within 0.2 s; after that no new request comes.
_UNROUTE_S = 1.0
_TERM_S = 25.0
# The first restart comes at once, the second after this, each later one four times as late.
_BACK_OFF_S = 0.5
_MAX_BACK_OFF_S = 30.0
_STABLE_AFTER_S = 60.0
_FAILED_AFTER = 3
_MAX_PAUSE_S = 30.0


@dataclass
class _Watch:
    """What the reconciler remembers of one server between ticks."""

    child: subprocess.Popen[bytes] | None = None
    exit_status: int | None = None
    health_s: float = 0.0
    silent_s: float | None = None
    silent_cpu_s: float = 0.0
    stop_s: float = 0.0
    term_s: float = 0.0
    ready_s: float = 0.0


@dataclass
class Reconciler:
    """The control loop; one a data folder."""

    _watches: dict[str, _Watch] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _wake: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _lock: IO[str] | None = None
    _engine: EngineClient = field(default_factory=EngineClient)
    _logs_s: float = 0.0

    def start(self) -> None:
        """Begin; Conflict when another process reconciles this data folder."""
        path = settings().data_dir / "run" / "reconciler.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(
                f"Another process already runs the deployments of {settings().data_dir}.",
                remedy="Stop it, or use another BUD_DATA_DIR.",
            ) from error
        events.subscribe("deployments.wanted", self.wake)
        self._thread = threading.Thread(target=self._loop, name="reconciler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; the servers go on."""
        self._stopping.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self._engine.close()
        if self._lock is not None:
            self._lock.close()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def _loop(self) -> None:
        pause_s = _TICK_S
        while not self._stopping.is_set():
            try:
                self.tick()
                pause_s = _TICK_S
            except Exception:
                # Such as a locked database or a full disk: not twice a second for hours.
                pause_s = min(pause_s * 2, _MAX_PAUSE_S)
                log.exception("the reconciler tries again in %.0f s", pause_s)
            self._wake.wait(pause_s)
            self._wake.clear()

    def tick(self) -> None:
        """Compare once, and act."""
        records = server_records.read_all(settings().data_dir)
        with database.reading() as session:
            deployments = crud.deployments(session)
            rows = crud.replicas(session, [deployment.id for deployment in deployments])
        known = {replica.id for replicas in rows.values() for replica in replicas}
        for replica_id in set(records) - known:
            self._end_orphan(records[replica_id])
        changed = [self._one(row, rows[row.id], records) for row in deployments]
        self._shorten_logs(rows)
        if any(changed):
            events.publish("deployments.changed")

    def _shorten_logs(self, rows: dict[str, list[Replica]]) -> None:
        now_s = time.monotonic()
        if now_s < self._logs_s:
            return
        self._logs_s = now_s + _LOG_CHECK_S
        for deployment_id, replicas in rows.items():
            for replica in replicas:
                local.shorten_log(deployment_id, replica.position)

    def _end_orphan(self, record: ServerRecord) -> None:
        orphan = server_records.process(record)
        if orphan is not None:
            log.warning("ending model server %s, which no deployment knows", record.pid)
            with suppress(psutil.Error):
                orphan.kill()
        server_records.forget(settings().data_dir, record.replica_id)

    def _one(
        self, deployment: Deployment, replicas: list[Replica], records: dict[str, ServerRecord]
    ) -> bool:
        before = [_visible(replica) for replica in replicas]
        alive = {
            replica.id: self._process(replica, records.get(replica.id)) for replica in replicas
        }
        wanted = deployment.desired_replicas if deployment.desired_state == "running" else 0
        kept: list[Replica] = []
        for replica in replicas:
            if replica.position >= wanted or replica.state == "stopping":
                if not self._ended(replica, alive[replica.id]):
                    kept.append(replica)
                continue
            self._keep_running(deployment, replica, alive[replica.id], records.get(replica.id))
            kept.append(replica)
        taken = {replica.position for replica in kept}
        missing = [position for position in range(wanted) if position not in taken]
        kept.extend(self._new_replica(deployment, position) for position in missing)
        self._replace_one_old(deployment, kept)
        return self._write(deployment, replicas, kept, before)

    def _process(self, replica: Replica, record: ServerRecord | None) -> psutil.Process | None:
        watch = self._watches.setdefault(replica.id, _Watch())
        if watch.child is not None:
            watch.exit_status = watch.child.poll()
            if watch.exit_status is None:
                # Its record may not be written yet.
                with suppress(psutil.Error):
                    return psutil.Process(watch.child.pid)
            watch.child = None
        # Also after the end of a child: it gives way to a server that an earlier app started.
        return server_records.process(record) if record is not None else None

    def _ended(self, replica: Replica, running: psutil.Process | None) -> bool:
        """Bring a server to its end, step by step; True once it is gone."""
        watch, now_s = self._watches[replica.id], time.monotonic()
        if running is None:
            server_records.forget(settings().data_dir, replica.id)
            del self._watches[replica.id]
            return True
        if replica.state != "stopping":
            replica.state = "stopping"
            watch.stop_s = now_s + _UNROUTE_S
        elif not watch.term_s and now_s >= watch.stop_s:
            watch.term_s = now_s
            with suppress(psutil.Error):
                running.terminate()
        elif watch.term_s and now_s > watch.term_s + _TERM_S:
            with suppress(psutil.Error):
                running.kill()
        return False

    def _keep_running(
        self,
        deployment: Deployment,
        replica: Replica,
        running: psutil.Process | None,
        record: ServerRecord | None,
    ) -> None:
        if running is None:
            if replica.pid is not None:
                self._died(deployment, replica)
            if clock.now() >= replica.next_start_at:
                self._start(deployment, replica)
            return
        replica.pid = running.pid
        if record is not None and record.pid == running.pid and record.port:
            replica.port = record.port
            self._check_health(replica, running)

    def _check_health(self, replica: Replica, running: psutil.Process) -> None:
        watch, now_s = self._watches[replica.id], time.monotonic()
        if now_s < watch.health_s or replica.port is None:
            return
        watch.health_s = now_s + _HEALTH_EVERY_S
        if not self._engine.healthy(replica.port):
            self._silent(replica, running, now_s)
            return
        watch.silent_s = None
        if replica.state != "ready":
            replica.state, replica.ready_at, replica.last_error = "ready", clock.now(), None
        # Also for one that was adopted while it was ready.
        watch.ready_s = watch.ready_s or now_s
        if now_s - watch.ready_s > _STABLE_AFTER_S:
            replica.crashes = 0

    def _silent(self, replica: Replica, running: psutil.Process, now_s: float) -> None:
        """It does not answer: end it when it has not computed anything for long either."""
        watch, used_s = self._watches[replica.id], local.cpu_s(running)
        if watch.silent_s is None or used_s - watch.silent_cpu_s > _BUSY_CPU_S:
            watch.silent_s, watch.silent_cpu_s = now_s, used_s
        elif now_s - watch.silent_s > _HANGS_AFTER_S:
            log.warning("model server %s hangs; it is started again", running.pid)
            with suppress(psutil.Error):
                running.kill()

    def _died(self, deployment: Deployment, replica: Replica) -> None:
        watch = self._watches[replica.id]
        if watch.ready_s == 0.0 and watch.exit_status is None:
            # It ended while no app watched, as when the machine was started anew: no fault.
            replica.next_start_at = clock.now()
        else:
            status = watch.exit_status
            loading = replica.state in ("starting", "restarting")
            said = local.load_failure(deployment.id, replica.position) if loading else ""
            self._back_off(replica, said or _ending(replica, status))
            replica.restarts += 1
        replica.state, replica.pid, replica.port = "restarting", None, None
        server_records.remove(settings().data_dir, replica.id)
        self._watches[replica.id] = _Watch()

    def _back_off(self, replica: Replica, why: str) -> None:
        replica.crashes += 1
        delay_s = _BACK_OFF_S * 4 ** (replica.crashes - 2) if replica.crashes > 1 else 0.0
        replica.next_start_at = clock.now() + timedelta(seconds=min(delay_s, _MAX_BACK_OFF_S))
        replica.last_error, replica.state = why, "restarting"

    def _start(self, deployment: Deployment, replica: Replica) -> None:
        try:
            child = local.start(self._config(deployment, replica), replica.position)
        except (BudError, OSError) as error:
            # The model is gone, the disk is full, no process can be made: said, and tried again.
            self._back_off(replica, f"The model server cannot be started: {error}")
            return
        replica.started_at = clock.now()
        self._watches[replica.id] = _Watch(child=child)
        replica.state = "restarting" if replica.crashes else "starting"
        replica.pid, replica.generation = child.pid, deployment.generation

    def _config(self, deployment: Deployment, replica: Replica) -> ServerConfig:
        # Its path moves with Bud's environment, so it is asked for each time.
        actor = Actor.system(deployment.tenant_id)
        model = versions.pinned(actor, deployment.model_id, deployment.model_version_id)
        return ServerConfig(
            replica_id=replica.id,
            deployment_id=deployment.id,
            data_dir=str(settings().data_dir),
            keys_dir=str(settings().keys_folder),
            model_path=str(model.path),
            model_name=deployment.name,
            credential=replica.sealed_key,
            context_tokens=deployment.context_tokens,
            slots=deployment.slots,
            threads=deployment.threads,
            embedding=deployment.task == "embedding",
            rerank=deployment.task == "rerank",
            # A model made for embeddings says itself how they are pooled.
            pool_mean=model.capabilities != ["embedding"],
        )

    def _replace_one_old(self, deployment: Deployment, replicas: list[Replica]) -> None:
        """Rolling restart: end one replica of an old generation, when the others answer."""
        old = [replica for replica in replicas if replica.generation != deployment.generation]
        if not old or any(replica.state == "stopping" for replica in replicas):
            return
        candidate = old[0]
        others = [replica for replica in replicas if replica is not candidate]
        if candidate.state == "ready" and any(other.state != "ready" for other in others):
            return
        self._watches.setdefault(candidate.id, _Watch()).stop_s = time.monotonic() + _UNROUTE_S
        candidate.state = "stopping"

    def _new_replica(self, deployment: Deployment, position: int) -> Replica:
        replica_id = ids.new_id("rep")
        credential = Secret(os.urandom(24).hex())
        return Replica(
            id=replica_id,
            deployment_id=deployment.id,
            project_id=deployment.project_id,
            position=position,
            generation=deployment.generation,
            state="starting",
            sealed_key=keyring().seal(credential, context=f"replica:{replica_id}"),
            restarts=0,
            crashes=0,
            next_start_at=clock.now(),
        )

    def _write(
        self,
        deployment: Deployment,
        old: list[Replica],
        kept: list[Replica],
        before: list[tuple[object, ...]],
    ) -> bool:
        """Write what changed; whether anything did."""
        state, reason = _state_of(deployment, kept)
        gone = deployment.desired_state == "deleted" and not kept
        unchanged = [_visible(replica) for replica in kept] == before
        if unchanged and (state, reason) == (deployment.state, deployment.reason) and not gone:
            return False
        kept_ids = {replica.id for replica in kept}
        with database.transaction() as tx:
            row = crud.deployment(tx, deployment.id)
            if row is None:
                return False
            for replica in old:
                if replica.id not in kept_ids:
                    crud.delete_replica(tx, replica.id)
            for replica in kept:
                tx.merge(replica)
            # Somebody may have asked for something else since the row was read.
            if row.desired_state == deployment.desired_state:
                row.state, row.reason = state, reason
            if gone:
                tx.flush()
                tx.delete(row)
        return True


def _ending(replica: Replica, status: int | None) -> str:
    """How a server ended that gave no reason."""
    said = f"The model server (process {replica.pid}) ended"
    if status is None or status >= 0:
        return f"{said} with status {status}." if status else f"{said}."
    hint = " If nobody killed it, the machine ran out of memory." if status == -9 else ""
    return f"{said} by {signal.Signals(-status).name}.{hint}"


def _visible(replica: Replica) -> tuple[object, ...]:
    return (
        replica.id,
        replica.state,
        replica.pid,
        replica.port,
        replica.restarts,
        replica.crashes,
        replica.generation,
    )


def _state_of(deployment: Deployment, replicas: list[Replica]) -> tuple[str, str | None]:
    """The state of a deployment and its reason, from its replicas."""
    wanted = deployment.desired_replicas
    looping = any(replica.crashes >= _FAILED_AFTER for replica in replicas)
    failed = looping or (deployment.desired_state != "running" and bool(deployment.failure))
    seen = [cast(ReplicaState, replica.state) for replica in replicas]
    state = derive(cast(DesiredState, deployment.desired_state), wanted, seen, failed)
    if state in ("planned", "ready"):
        return state, None
    errors = [replica.last_error for replica in replicas if replica.last_error]
    return state, errors[0] if errors else deployment.failure
