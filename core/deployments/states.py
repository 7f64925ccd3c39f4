"""The states of a deployment, and how they follow from those of its replicas.

They mean the same wherever a deployment runs: a replica is a process on this machine and a pod
on Kubernetes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

DeploymentState = Literal[
    "planned",
    "starting",
    "ready",
    "degraded",
    "restarting",
    "stopping",
    "stopped",
    "failed",
    "deleting",
]
ReplicaState = Literal["starting", "ready", "restarting", "stopping", "stopped", "failed"]
DesiredState = Literal["planned", "running", "stopped", "deleted"]
Tone = Literal["neutral", "progress", "good", "warning", "bad"]


@dataclass(frozen=True)
class StateInfo:
    """A state in words; `tone` is for its badge; `serves` says whether callers get answers."""

    name: DeploymentState
    meaning: str
    tone: Tone
    serves: bool = False


STATES: dict[str, StateInfo] = {
    info.name: info
    for info in (
        StateInfo("planned", "Accepted; its job has not started it yet.", "neutral"),
        StateInfo("starting", "Its replicas are loading the model.", "progress"),
        StateInfo("ready", "Every replica answers.", "good", serves=True),
        StateInfo(
            "degraded", "Some replicas answer; the others are starting.", "warning", serves=True
        ),
        StateInfo("restarting", "No replica answers; they are being started again.", "warning"),
        StateInfo("stopping", "Its replicas finish what they work on and end.", "progress"),
        StateInfo("stopped", "Nothing runs; it keeps its settings and can be started.", "neutral"),
        StateInfo("failed", "It cannot run; the reason says why and what to do.", "bad"),
        StateInfo("deleting", "Its replicas end, then it is gone.", "progress"),
    )
}


def derive(
    desired: DesiredState, wanted: int, replicas: Sequence[ReplicaState], failed: bool
) -> DeploymentState:
    """The state of a deployment.

    Args:
        desired: What somebody asked for.
        wanted: How many replicas were asked for.
        replicas: The states of the replicas there are, also of surplus ones.
        failed: Whether its job, or every attempt to start it, failed.
    """
    alive = [state for state in replicas if state not in ("stopped", "failed")]
    if desired == "deleted":
        return "deleting"
    if desired == "planned":
        return "planned"
    if desired == "stopped":
        if alive:
            return "stopping"
        return "failed" if failed else "stopped"
    ready = sum(state == "ready" for state in replicas)
    if ready:
        return "ready" if ready >= wanted else "degraded"
    if failed or "failed" in replicas:
        return "failed"
    return "restarting" if "restarting" in replicas else "starting"
