"""Tables of deployments, their replicas, and drafts of the deploy wizard."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from core.kernel.database import Base, UtcDateTime


class Deployment(Base):
    """What somebody wants to run. `generation` grows when its replicas must be made anew.

    `failure` is why its job or its replicas gave up, until it is started again; `state` and
    `reason` follow from all of this and are kept so that pages need not work them out.
    `calibration` is a `schemas.Calibration`; it counts requests from `measured_since` on.
    """

    __tablename__ = "deployments"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    cluster_id: Mapped[str] = mapped_column(String(40))
    name: Mapped[str] = mapped_column(String(63))
    model_id: Mapped[str] = mapped_column(String(40), index=True)
    model_version_id: Mapped[str | None] = mapped_column(String(40), index=True)
    model_name: Mapped[str] = mapped_column(String(120))
    task: Mapped[str] = mapped_column(String(20))
    context_tokens: Mapped[int]
    slots: Mapped[int]
    threads: Mapped[int]
    requested: Mapped[dict[str, Any]] = mapped_column(JSON)
    replica_bytes: Mapped[int] = mapped_column(BigInteger)
    desired_state: Mapped[str] = mapped_column(String(20))
    desired_replicas: Mapped[int]
    generation: Mapped[int] = mapped_column(Integer, default=1)
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str | None] = mapped_column(Text)
    failure: Mapped[str | None] = mapped_column(Text)
    job_id: Mapped[str | None] = mapped_column(String(40))
    calibration: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    measured_since: Mapped[datetime] = mapped_column(UtcDateTime)
    demo: Mapped[bool] = mapped_column(default=False)
    created_by_name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class HostedEndpoint(Base):
    """A hosted model of the registry under a name that callers of the project use."""

    __tablename__ = "hosted_endpoints"
    __table_args__ = (UniqueConstraint("project_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    name: Mapped[str] = mapped_column(String(63))
    model_id: Mapped[str] = mapped_column(String(40), index=True)
    task: Mapped[str] = mapped_column(String(20))
    created_by_name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class Replica(Base):
    """One server of a deployment, as the reconciler last saw it.

    `generation` is the deployment's when its process was started. `crashes` counts the ends in
    a row that came soon after a start; `next_start_at` is when the back-off is over.
    """

    __tablename__ = "replicas"
    __table_args__ = (UniqueConstraint("deployment_id", "position"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    deployment_id: Mapped[str] = mapped_column(ForeignKey("deployments.id"))
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    position: Mapped[int]
    generation: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    sealed_key: Mapped[str] = mapped_column(Text)
    pid: Mapped[int | None]
    port: Mapped[int | None]
    restarts: Mapped[int] = mapped_column(default=0)
    crashes: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    ready_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_start_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_error: Mapped[str | None] = mapped_column(Text)


class DeploymentDraft(Base):
    """A deployment that somebody is still choosing; `content` is a `schemas.DraftContent`."""

    __tablename__ = "deployment_drafts"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(40))
    project_id: Mapped[str] = mapped_column(String(40), index=True)
    step: Mapped[str] = mapped_column(String(20))
    content: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_by_name: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
