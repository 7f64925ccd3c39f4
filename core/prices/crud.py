"""Every query of the prices domain."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from core.prices.models import MachinePriceRow, TokenPriceRow


def token_prices(
    tx: Session, tenant_id: str, project_id: str, model: str | None, until: datetime | None = None
) -> list[TokenPriceRow]:
    """The rows of a project, newest first."""
    query = select(TokenPriceRow).where(
        TokenPriceRow.tenant_id == tenant_id, TokenPriceRow.project_id == project_id
    )
    if model is not None:
        query = query.where(TokenPriceRow.model == model)
    if until is not None:
        query = query.where(TokenPriceRow.valid_from <= until)
    newest_first = query.order_by(TokenPriceRow.valid_from.desc(), TokenPriceRow.id.desc())
    return list(tx.scalars(newest_first))


def machine_prices(tx: Session, tenant_id: str, cluster_id: str | None) -> list[MachinePriceRow]:
    """The rows of a cluster, or of all when None, newest first."""
    query = select(MachinePriceRow).where(MachinePriceRow.tenant_id == tenant_id)
    if cluster_id is not None:
        query = query.where(MachinePriceRow.cluster_id == cluster_id)
    newest_first = query.order_by(MachinePriceRow.valid_from.desc(), MachinePriceRow.id.desc())
    return list(tx.scalars(newest_first))


def delete_token_prices(tx: Session, tenant_id: str, project_id: str) -> int:
    """Delete the rows of a project; how many there were."""
    of_project = (TokenPriceRow.tenant_id == tenant_id, TokenPriceRow.project_id == project_id)
    count = tx.scalar(select(func.count()).select_from(TokenPriceRow).where(*of_project)) or 0
    tx.execute(delete(TokenPriceRow).where(*of_project))
    return count
