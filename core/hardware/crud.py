"""Every query of the hardware domain."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.hardware.models import HardwareEntry


def entries(tx: Session, tenant_id: str) -> list[HardwareEntry]:
    """The devices that a tenant added, by id."""
    query = select(HardwareEntry).where(HardwareEntry.tenant_id == tenant_id)
    return list(tx.scalars(query.order_by(HardwareEntry.slug)))


def entry(tx: Session, tenant_id: str, slug: str) -> HardwareEntry | None:
    """One of them by its id in the catalogue."""
    query = select(HardwareEntry).where(
        HardwareEntry.tenant_id == tenant_id, HardwareEntry.slug == slug
    )
    return tx.scalar(query)
