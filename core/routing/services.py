"""Composes the route table from what is deployed and hosted, keys, limits, prices; publishes it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import msgspec

from core.accounts import api_keys
from core.contracts import route_table
from core.contracts.route_table import ApiKey, Hosted, Limit, Price, Replica, Route, RouteTable
from core.deployments import hosted
from core.deployments import services as deployments
from core.deployments.schemas import DeploymentRoute, HostedRoute
from core.kernel import clock, database, events
from core.kernel.actor import Actor
from core.kernel.settings import settings
from core.limits import services as limits
from core.prices import services as prices
from core.routing.models import Publication

_Composed = tuple[list[Route], list[ApiKey], list[Limit]]


def table_path() -> Path:
    """Where the gateway finds the table."""
    return settings().data_dir / "routes" / route_table.FILE_NAME


def publish() -> int:
    """Publish the table when it differs from the last one; its version.

    Safe from any thread or process: the database's write lock puts publishers in order.
    """
    composed = _compose()
    with database.reading() as session:
        last = session.get(Publication, 1)
    if last is not None and _is_published(last, _digest(composed)):
        return last.version
    with database.transaction() as tx:
        # Composed again: another publisher may have come first.
        composed = _compose()
        digest = _digest(composed)
        last = tx.get(Publication, 1)
        if last is not None and _is_published(last, digest):
            return last.version
        if last is None:
            last = Publication(id=1, version=0)
            tx.add(last)
        last.version, last.content_sha256, last.published_at = (
            last.version + 1,
            digest,
            clock.now(),
        )
        routes, keys, limited = composed
        table = RouteTable(
            version=last.version,
            published_unix_s=clock.unix_s(),
            routes=routes,
            keys=keys,
            limits=limited,
        )
        _write(route_table.encode(table))
        return last.version


def _digest(composed: _Composed) -> str:
    return hashlib.sha256(msgspec.json.encode(composed)).hexdigest()


def _is_published(last: Publication, digest: str) -> bool:
    return last.content_sha256 == digest and table_path().exists()


def subscribe() -> None:
    """Publish whenever something that stands in the table changes."""
    for what in ("keys", "deployments", "models", "limits", "prices"):
        events.subscribe(f"{what}.changed", _publish)


def _publish() -> None:
    publish()


def _compose() -> _Composed:
    keys = [
        ApiKey(
            id=key.id,
            sha256=key.sha256,
            project_id=key.project_id,
            user_id=key.user_id,
            expires_unix_s=key.expires_at.timestamp() if key.expires_at else None,
            models=key.models,
        )
        for key in api_keys.active_keys()
    ]
    local = [_route(source) for source in deployments.routes()]
    return [*local, *[_hosted(source) for source in hosted.routes()]], keys, _limits()


def _limits() -> list[Limit]:
    return [
        Limit(
            project_id=limit.project_id,
            level=limit.level,
            subject=limit.subject,
            metric=limit.metric,
            window=limit.window,
            amount=limit.amount,
            when_alone=limit.when_alone,
        )
        for limit in limits.active_limits()
    ]


def _route(source: DeploymentRoute) -> Route:
    return Route(
        model=source.name,
        project_id=source.project_id,
        deployment_id=source.deployment_id,
        upstream_model=source.name,
        capabilities=list(source.capabilities),
        replicas=[
            Replica(
                id=replica.id,
                base_url=f"http://127.0.0.1:{replica.port}",
                credential=replica.sealed_key,
                slots=replica.slots,
            )
            for replica in source.replicas
        ],
        context_tokens=source.context_tokens,
        state=source.state,
        created_unix_s=int(source.created_at.timestamp()),
        price=_price(source),
    )


def _hosted(source: HostedRoute) -> Route:
    replica = Replica(
        id=source.endpoint_id,
        base_url=source.base_url,
        credential=source.sealed_credentials,
        hosted=Hosted(
            kind=source.kind,
            model=source.provider_model,
            account_id=source.account_id,
            options=source.options,
        ),
    )
    return Route(
        model=source.name,
        project_id=source.project_id,
        deployment_id=source.endpoint_id,
        upstream_model=source.provider_model,
        capabilities=[source.capability],
        replicas=[replica],
        context_tokens=source.context_tokens,
        created_unix_s=int(source.created_at.timestamp()),
        price=_price(source),
    )


def _price(source: DeploymentRoute | HostedRoute) -> Price | None:
    actor = Actor.system(source.tenant_id)
    found = prices.token_price(actor, source.project_id, source.name)
    if found is None:
        return None
    return Price(
        input_usd_per_million_tokens=found.input_usd_per_million_tokens,
        output_usd_per_million_tokens=found.output_usd_per_million_tokens,
        cached_usd_per_million_tokens=found.cached_usd_per_million_tokens,
    )


def _write(content: bytes) -> None:
    path = table_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
