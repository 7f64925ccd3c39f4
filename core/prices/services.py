"""Use cases of prices: set, look up, history. How cost is made of them: docs/prices.md."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from core.kernel import audit, clock, database, events, ids
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput, PermissionDenied
from core.prices import crud
from core.prices.models import MachinePriceRow, TokenPriceRow
from core.prices.schemas import THIS_MACHINE, MachinePrice, PriceSpan, TokenPrice

__all__ = [
    "THIS_MACHINE",
    "clear_machine_price",
    "forget_project",
    "machine_price",
    "machine_price_history",
    "machine_price_spans",
    "machine_usd_per_hour",
    "set_machine_price",
    "set_token_price",
    "token_price",
    "token_price_history",
    "token_prices",
]

# Far above any real price; catches a figure typed into the wrong field.
_MAX_USD_PER_HOUR = 1_000_000.0
_MAX_USD_PER_MILLION_TOKENS = 1_000_000.0
# As Settings calls them.
_LABELS = {
    "usd_per_hour": "USD per hour",
    "watts": "Power under load (W)",
    "usd_per_kwh": "Electricity (USD per kWh)",
    "purchase_usd": "Purchase price (USD)",
    "lifetime_hours": "Lifetime (hours)",
    "input_usd_per_million_tokens": "Input (USD per million tokens)",
    "output_usd_per_million_tokens": "Output (USD per million tokens)",
    "cached_usd_per_million_tokens": "Cached (USD per million tokens)",
}
_NO_END = datetime(2200, 1, 1, tzinfo=UTC)


def set_token_price(
    actor: Actor,
    project_id: str,
    model: str,
    *,
    input_usd_per_million_tokens: float | None,
    output_usd_per_million_tokens: float | None,
    cached_usd_per_million_tokens: float | None = None,
    valid_from: datetime | None = None,
) -> TokenPrice:
    """Set what tokens of `model` cost in a project from `valid_from` on (default: now).

    All None takes the price back to "not set". 0.0 is a price: free on purpose.

    Raises:
        InvalidInput: A negative or absurd figure, one of input and output without the other, or
            an empty model name.
    """
    actor.require("price:update", project_id)
    figures = {
        "input_usd_per_million_tokens": input_usd_per_million_tokens,
        "output_usd_per_million_tokens": output_usd_per_million_tokens,
        "cached_usd_per_million_tokens": cached_usd_per_million_tokens,
    }
    for name, value in figures.items():
        _check_figure(name, value, _MAX_USD_PER_MILLION_TOKENS)
    if not model.strip():
        raise InvalidInput("A token price needs a model name.", remedy="Name a deployment.")
    _check_complete(**figures)
    row = TokenPriceRow(
        id=ids.new_id("tpr"),
        tenant_id=actor.tenant_id,
        project_id=project_id,
        model=model.strip(),
        valid_from=valid_from or clock.now(),
        set_by_name=actor.name,
        **figures,
    )
    with database.transaction() as tx:
        tx.add(row)
        audit.record(
            tx,
            actor,
            "price.tokens_set",
            f"price:{model.strip()}"[:80],
            project_id=project_id,
            **figures,
        )
    events.publish("prices.changed")
    return TokenPrice.model_validate(row)


def token_price(
    actor: Actor, project_id: str, model: str, at: datetime | None = None
) -> TokenPrice | None:
    """The price of a model's tokens at a moment (default: now); None is "not set"."""
    actor.require("price:read", project_id)
    with database.reading() as session:
        rows = crud.token_prices(session, actor.tenant_id, project_id, model, at or clock.now())
    price = TokenPrice.model_validate(rows[0]) if rows else None
    return price if price is not None and price.is_set else None


def token_prices(actor: Actor, project_id: str, at: datetime | None = None) -> list[TokenPrice]:
    """The prices that hold in a project at a moment (default: now), by model name."""
    actor.require("price:read", project_id)
    with database.reading() as session:
        rows = crud.token_prices(session, actor.tenant_id, project_id, None, at or clock.now())
    newest: dict[str, TokenPrice] = {}
    for row in rows:
        newest.setdefault(row.model, TokenPrice.model_validate(row))
    return [newest[model] for model in sorted(newest) if newest[model].is_set]


def token_price_history(
    actor: Actor, project_id: str, model: str | None = None
) -> list[TokenPrice]:
    """Every price there was, newest first; a row that is not `is_set` took a price back."""
    actor.require("price:read", project_id)
    with database.reading() as session:
        rows = crud.token_prices(session, actor.tenant_id, project_id, model)
    return [TokenPrice.model_validate(row) for row in rows]


def machine_usd_per_hour(
    *, watts: float, usd_per_kwh: float, purchase_usd: float = 0.0, lifetime_hours: float = 0.0
) -> float:
    """USD an hour of a machine one owns: electricity and a share of what it cost.

    `watts / 1000 [kW] × usd_per_kwh [USD/kWh] + purchase_usd [USD] / lifetime_hours [h]`

    Raises:
        InvalidInput: A negative figure, or a purchase without a lifetime.
    """
    figures = {
        "watts": watts,
        "usd_per_kwh": usd_per_kwh,
        "purchase_usd": purchase_usd,
        "lifetime_hours": lifetime_hours,
    }
    for name, value in figures.items():
        _check_figure(name, value, 1e9)
    if purchase_usd > 0 and lifetime_hours <= 0:
        raise InvalidInput(
            "A purchase price needs a lifetime.",
            remedy="Give the hours the machine will serve, such as 26280 for three years.",
        )
    return watts / 1000 * usd_per_kwh + (purchase_usd / lifetime_hours if purchase_usd else 0.0)


def set_machine_price(
    actor: Actor,
    cluster_id: str = THIS_MACHINE,
    *,
    usd_per_hour: float | None = None,
    watts: float | None = None,
    usd_per_kwh: float | None = None,
    purchase_usd: float | None = None,
    lifetime_hours: float | None = None,
    valid_from: datetime | None = None,
) -> MachinePrice:
    """Set what an hour of a machine costs from `valid_from` on (default: now). Admins only.

    Give either `usd_per_hour`, or `watts` and `usd_per_kwh`, with `purchase_usd` and
    `lifetime_hours` for a machine that was bought (see `machine_usd_per_hour`).

    Raises:
        InvalidInput: Neither or both ways given, a part missing, or an absurd figure.
    """
    parts = (watts, usd_per_kwh, purchase_usd, lifetime_hours)
    if usd_per_hour is not None:
        if any(part is not None for part in parts):
            raise InvalidInput(
                "Two ways to price the machine were given.",
                remedy="Give USD per hour, or watts with a tariff, not both.",
            )
    elif watts is None or usd_per_kwh is None:
        raise InvalidInput(
            "The machine's price is not complete.",
            remedy="Give USD per hour, 0 where it is free; or watts and USD per kWh.",
        )
    else:
        usd_per_hour = machine_usd_per_hour(
            watts=watts,
            usd_per_kwh=usd_per_kwh,
            purchase_usd=purchase_usd or 0.0,
            lifetime_hours=lifetime_hours or 0.0,
        )
    _check_figure("usd_per_hour", usd_per_hour, _MAX_USD_PER_HOUR)
    return _add_machine_price(actor, cluster_id, usd_per_hour, parts, valid_from)


def clear_machine_price(actor: Actor, cluster_id: str = THIS_MACHINE) -> MachinePrice:
    """Take a machine's price back to "not set" from now on. Admins only."""
    return _add_machine_price(actor, cluster_id, None, (None, None, None, None), None)


def _add_machine_price(
    actor: Actor,
    cluster_id: str,
    usd_per_hour: float | None,
    parts: tuple[float | None, float | None, float | None, float | None],
    valid_from: datetime | None,
) -> MachinePrice:
    actor.require("price:update")
    watts, usd_per_kwh, purchase_usd, lifetime_hours = parts
    row = MachinePriceRow(
        id=ids.new_id("mpr"),
        tenant_id=actor.tenant_id,
        cluster_id=cluster_id,
        usd_per_hour=usd_per_hour,
        watts=watts,
        usd_per_kwh=usd_per_kwh,
        purchase_usd=purchase_usd,
        lifetime_hours=lifetime_hours,
        valid_from=valid_from or clock.now(),
        set_by_name=actor.name,
    )
    with database.transaction() as tx:
        tx.add(row)
        audit.record(
            tx, actor, "price.machine_set", f"cluster:{cluster_id}", usd_per_hour=usd_per_hour
        )
    events.publish("prices.changed")
    return MachinePrice.model_validate(row)


def machine_price(
    actor: Actor, cluster_id: str = THIS_MACHINE, at: datetime | None = None
) -> MachinePrice | None:
    """What an hour of a machine costs at a moment (default: now); None is "not set"."""
    moment = at or clock.now()
    for price in machine_price_history(actor, cluster_id):
        if price.valid_from <= moment:
            return price if price.usd_per_hour is not None else None
    return None


def machine_price_history(actor: Actor, cluster_id: str = THIS_MACHINE) -> list[MachinePrice]:
    """Every price a machine had, newest first; a row without `usd_per_hour` took it back.

    Machines are the tenant's, so whoever may read prices in any of its projects may read this.
    """
    if not actor.is_admin and not any(actor.may("price:read", name) for name in actor.projects):
        raise PermissionDenied(
            f"{actor.name} may not do this (price:read).",
            remedy="Ask an admin to make you a member of a project.",
        )
    with database.reading() as session:
        rows = crud.machine_prices(session, actor.tenant_id, cluster_id)
    return [MachinePrice.model_validate(row) for row in rows]


def machine_price_spans(actor: Actor, start: datetime, end: datetime) -> list[PriceSpan]:
    """The prices of every machine that held at some time between two moments.

    Spans are whole, also where they reach out of that time; one without a price is left out.
    """
    with database.reading() as session:
        rows = crud.machine_prices(session, actor.tenant_id, None)
    spans: list[PriceSpan] = []
    replaced_at: dict[str, datetime] = {}
    for row in rows:  # newest first: each row holds until the next newer one of its machine
        span_end = replaced_at.get(row.cluster_id, _NO_END)
        replaced_at[row.cluster_id] = row.valid_from
        if row.usd_per_hour is not None and row.valid_from < end and span_end > start:
            spans.append(
                PriceSpan(
                    cluster_id=row.cluster_id,
                    start_unix_s=row.valid_from.timestamp(),
                    end_unix_s=span_end.timestamp(),
                    usd_per_hour=row.usd_per_hour,
                )
            )
    return spans


def forget_project(actor: Actor, project_id: str) -> int:
    """Delete the prices of a project that goes away; how many there were."""
    actor.require("price:update", project_id)
    with database.transaction() as tx:
        count = crud.delete_token_prices(tx, actor.tenant_id, project_id)
        if count:
            audit.record(
                tx, actor, "price.forgotten", f"project:{project_id}", project_id=project_id
            )
    events.publish("prices.changed")
    return count


def _check_complete(
    input_usd_per_million_tokens: float | None,
    output_usd_per_million_tokens: float | None,
    cached_usd_per_million_tokens: float | None,
) -> None:
    given = (input_usd_per_million_tokens is None, output_usd_per_million_tokens is None)
    if given == (False, False):
        return
    # Half a price would leave every request without a cost.
    if given != (True, True) or cached_usd_per_million_tokens is not None:
        raise InvalidInput(
            "A token price is not complete.",
            remedy="Give both input and output; 0 for what is free, such as embeddings' output.",
        )


def _check_figure(name: str, value: float | None, at_most: float) -> None:
    if value is None:
        return
    if not math.isfinite(value) or value < 0 or value > at_most:
        raise InvalidInput(
            f"{_LABELS[name]} must be between 0 and {at_most:,.0f}.",
            value=f"{value:,.15g}",
            remedy="Check the figure and its unit.",
        )
