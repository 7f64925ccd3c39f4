"""Every query of the deployments domain."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from core.deployments.models import Deployment, DeploymentDraft, HostedEndpoint, Replica


def deployment(tx: Session, deployment_id: str) -> Deployment | None:
    """One deployment."""
    return tx.get(Deployment, deployment_id)


def by_name(tx: Session, project_id: str, name: str) -> Deployment | None:
    """The deployment of a project with this name."""
    return tx.scalar(
        select(Deployment).where(Deployment.project_id == project_id, Deployment.name == name)
    )


def deployments(tx: Session, project_id: str | None = None) -> list[Deployment]:
    """The deployments of a project, or every one when None; by name."""
    query = select(Deployment).order_by(Deployment.name)
    if project_id is not None:
        query = query.where(Deployment.project_id == project_id)
    return list(tx.scalars(query))


def of_model(tx: Session, used_id: str) -> list[Deployment]:
    """The deployments that use a model, or a version of one."""
    uses = or_(Deployment.model_id == used_id, Deployment.model_version_id == used_id)
    return list(tx.scalars(select(Deployment).where(uses)))


def replicas(tx: Session, deployment_ids: Sequence[str]) -> dict[str, list[Replica]]:
    """The replicas of several deployments, in order."""
    found: dict[str, list[Replica]] = {deployment_id: [] for deployment_id in deployment_ids}
    query = select(Replica).where(Replica.deployment_id.in_(deployment_ids))
    for row in tx.scalars(query.order_by(Replica.position, Replica.id)):
        found[row.deployment_id].append(row)
    return found


def replica(tx: Session, replica_id: str) -> Replica | None:
    """One replica."""
    return tx.get(Replica, replica_id)


def delete_replica(tx: Session, replica_id: str) -> None:
    """Forget a replica."""
    tx.execute(delete(Replica).where(Replica.id == replica_id))


def hosted(tx: Session, project_id: str | None = None) -> list[HostedEndpoint]:
    """The hosted endpoints of a project, or every one when None; by name."""
    query = select(HostedEndpoint).order_by(HostedEndpoint.name, HostedEndpoint.id)
    if project_id is not None:
        query = query.where(HostedEndpoint.project_id == project_id)
    return list(tx.scalars(query))


def hosted_endpoint(tx: Session, endpoint_id: str) -> HostedEndpoint | None:
    """One hosted endpoint."""
    return tx.get(HostedEndpoint, endpoint_id)


def hosted_by_name(tx: Session, project_id: str, name: str) -> HostedEndpoint | None:
    """The hosted endpoint of a project with this name."""
    found = HostedEndpoint.project_id == project_id, HostedEndpoint.name == name
    return tx.scalar(select(HostedEndpoint).where(*found))


def draft(tx: Session, draft_id: str) -> DeploymentDraft | None:
    """One draft."""
    return tx.get(DeploymentDraft, draft_id)


def drafts(tx: Session, tenant_id: str, project_id: str) -> list[DeploymentDraft]:
    """The drafts of a project, the newest first."""
    query = select(DeploymentDraft).where(
        DeploymentDraft.tenant_id == tenant_id, DeploymentDraft.project_id == project_id
    )
    return list(tx.scalars(query.order_by(DeploymentDraft.updated_at.desc())))


def forget_drafts(tx: Session, project_id: str) -> None:
    """Delete the drafts of a project."""
    tx.execute(delete(DeploymentDraft).where(DeploymentDraft.project_id == project_id))
