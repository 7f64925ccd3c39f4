"""Use cases of clusters: what there is to run on."""

from __future__ import annotations

from core.clusters.schemas import THIS_MACHINE, ClusterView, MachineView
from core.kernel import machine
from core.kernel.actor import Actor
from core.kernel.errors import NotFound, PermissionDenied
from core.kernel.settings import settings

__all__ = ["THIS_MACHINE", "get_cluster", "list_clusters", "this_machine"]


def this_machine() -> MachineView:
    """This machine now, within the limits of the container it may be in."""
    limits = machine.cgroup_limits()
    memory_total, memory_available = machine.memory_bytes(limits)
    disk_total, disk_free = machine.disk_bytes(settings().data_dir)
    return MachineView(
        hostname=machine.hostname(),
        os=machine.operating_system(),
        cpu_model=machine.cpu_model(),
        cores=machine.cores(limits),
        physical_cores=machine.physical_cores(limits),
        cpu_limit=limits.cpus,
        memory_total_bytes=memory_total,
        memory_available_bytes=memory_available,
        memory_limited_by_cgroup=memory_total == limits.memory_bytes,
        disk_total_bytes=disk_total,
        disk_free_bytes=disk_free,
    )


def list_clusters(actor: Actor) -> list[ClusterView]:
    """Every cluster; anyone who may read the deployments of some project may see them."""
    if not actor.is_admin and not any(
        actor.may("deployment:read", name) for name in actor.projects
    ):
        raise PermissionDenied(
            f"{actor.name} may not do this (cluster:read).",
            remedy="Ask an admin to make you a member of a project.",
        )
    return [
        ClusterView(
            id=THIS_MACHINE,
            name="This machine",
            kind="this-machine",
            state="ready",
            machine=this_machine(),
        )
    ]


def get_cluster(actor: Actor, cluster_id: str) -> ClusterView:
    """One cluster by id."""
    for cluster in list_clusters(actor):
        if cluster.id == cluster_id:
            return cluster
    raise NotFound(f"There is no cluster {cluster_id}.", remedy=f"Use {THIS_MACHINE}.")
