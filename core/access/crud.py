"""Every query of the access domain."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from core.access.models import BlockRow


def blocks(tx: Session, tenant_id: str, project_ids: list[str]) -> list[BlockRow]:
    """The rules of projects ("" is everywhere), by name."""
    query = select(BlockRow).where(
        BlockRow.tenant_id == tenant_id, BlockRow.project_id.in_(project_ids)
    )
    return list(tx.scalars(query.order_by(BlockRow.project_id, BlockRow.name)))


def all_blocks(tx: Session) -> list[BlockRow]:
    """Every rule there is."""
    return list(tx.scalars(select(BlockRow).order_by(BlockRow.id)))


def block(tx: Session, tenant_id: str, project_id: str, name: str) -> BlockRow | None:
    """The rule of a name."""
    query = select(BlockRow).where(
        BlockRow.tenant_id == tenant_id,
        BlockRow.project_id == project_id,
        BlockRow.name == name,
    )
    return tx.scalar(query)


def delete_blocks(tx: Session, tenant_id: str, project_id: str) -> int:
    """Delete the rules of a project; how many there were."""
    count = len(blocks(tx, tenant_id, [project_id]))
    tx.execute(
        delete(BlockRow).where(BlockRow.tenant_id == tenant_id, BlockRow.project_id == project_id)
    )
    return count
