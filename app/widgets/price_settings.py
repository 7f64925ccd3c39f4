"""The prices in Settings: what an hour of the machine costs, and what tokens cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import formats
from app.session import SessionContext
from app.widgets.layout import errors_shown, escape
from core.deployments import hosted
from core.deployments import services as deployments
from core.kernel.actor import Actor
from core.prices import services as prices
from core.prices.schemas import MachinePrice


class _Figures(TypedDict, total=False):
    """What the form gives to `prices.set_machine_price`."""

    usd_per_hour: float | None
    watts: float | None
    usd_per_kwh: float | None
    purchase_usd: float | None
    lifetime_hours: float | None


_DIRECT, _COMPUTED = "USD per hour", "Power and purchase"


def render(context: SessionContext) -> None:
    """Show both kinds of price; admins can change them."""
    _machine(context.actor)
    _tokens(context.actor, context.project_id, context.project_name)


def _machine(actor: Actor) -> None:
    st.markdown("#### This machine")
    price = prices.machine_price(actor)
    with st.container(border=True, key="machine-price"):
        if price is None:
            st.markdown(":orange-badge[price not set] Costs of requests show as “—” until it is.")
        else:
            st.markdown(f"**{formats.usd(price.usd_per_hour)} per hour** {_source(price)}")
            st.caption(f"Since {formats.when(price.valid_from)}, set by {price.set_by_name}.")
        if not actor.may("price:update"):
            st.caption("An admin can change it.")
            return
        _machine_form(actor, price)
    _machine_history(actor)


def _source(price: MachinePrice) -> str:
    if price.watts is None:
        return ""
    bought = ""
    if price.purchase_usd:
        bought = f" + \\${price.purchase_usd:,.0f} / {price.lifetime_hours:,.0f} h"
    return f":gray[= {price.watts:,.0f} W × \\${price.usd_per_kwh}/kWh{bought}]"


def _machine_form(actor: Actor, price: MachinePrice | None) -> None:
    way = st.segmented_control(
        "Price it by", [_DIRECT, _COMPUTED], default=_DIRECT, key="machine-price-way", required=True
    )
    given: _Figures
    if way == _COMPUTED:
        given = _computed(price)
    else:
        present = price.usd_per_hour if price is not None else None
        given = {
            "usd_per_hour": _figure(
                st.container(),
                "USD per hour",
                present,
                step=0.01,
                format="%.4f",
                placeholder="Such as 0.12",
            )
        }
    if st.button("Set the price", type="primary", key="set-machine-price"):
        with errors_shown():
            prices.set_machine_price(actor, **given)
            st.rerun()
    if price is not None and st.button("Back to not set", type="tertiary", key="clear-machine"):
        with errors_shown():
            prices.clear_machine_price(actor)
            st.rerun()


def _computed(price: MachinePrice | None) -> _Figures:
    left, right = st.columns(2)
    return {
        "watts": _figure(
            left, "Power under load (W)", price.watts if price else None, step=10.0
        ),
        "usd_per_kwh": _figure(
            right, "Electricity (USD per kWh)", price.usd_per_kwh if price else None,
            step=0.01, format="%.3f",
        ),
        "purchase_usd": _figure(
            left, "Purchase price (USD)", price.purchase_usd if price else None,
            step=100.0, help="Empty: only electricity.",
        ),
        "lifetime_hours": _figure(
            right, "Lifetime (hours)", price.lifetime_hours if price else None,
            step=1000.0, help="Three years are 26,280 hours.",
        ),
    }  # fmt: skip


def _figure(where: DeltaGenerator, label: str, present: float | None, **look: Any) -> float | None:
    """An input that begins with what holds now, and can be emptied.

    Streamlit puts an input's `value` back when that is emptied, so the session has it instead.
    Without bounds: a figure out of them would stay in the browser, and the service says more.
    """
    key = f"machine-{label}-{present}"
    if present is not None:
        st.session_state.setdefault(key, present)
    figure: float | None = where.number_input(label, value=None, key=key, **look)
    return figure


def _machine_history(actor: Actor) -> None:
    rows = prices.machine_price_history(actor)
    if rows:
        with st.expander(f"History ({len(rows)})"):
            st.dataframe(
                [
                    {
                        "From": row.valid_from,
                        "USD per hour": formats.usd(row.usd_per_hour),
                        "Set by": row.set_by_name,
                    }
                    for row in rows
                ],
                hide_index=True,
            )


def _tokens(actor: Actor, project_id: str, project_name: str) -> None:
    st.markdown(f"#### Tokens in project {escape(project_name)}")
    st.caption(
        "USD per million tokens. A model with a token price is costed by it, any other by its "
        "share of the machine's busy time."
    )
    found = prices.token_prices(actor, project_id)
    if found:
        st.dataframe(
            [
                {
                    "Model": row.model,
                    "Input": row.input_usd_per_million_tokens,
                    "Output": row.output_usd_per_million_tokens,
                    "Cached": row.cached_usd_per_million_tokens,
                    "Since": row.valid_from,
                    "Set by": row.set_by_name,
                }
                for row in found
            ],
            column_config={
                name: st.column_config.NumberColumn(f"{name} $/M tokens", format="%.4f")
                for name in ("Input", "Output", "Cached")
            }
            | {"Since": st.column_config.DatetimeColumn(format="YYYY-MM-DD HH:mm", timezone="UTC")},
            hide_index=True,
        )
    else:
        st.caption("No model of this project has a token price.")
    if actor.may("price:update", project_id):
        names = [view.name for view in deployments.list_deployments(actor, project_id)]
        names += hosted.names(actor, project_id)
        _token_form(actor, project_id, sorted({*names, *(row.model for row in found)}))


def _token_form(actor: Actor, project_id: str, names: Sequence[str]) -> None:
    with st.form("token-price"):
        model = st.selectbox(
            "Model", names, index=None, accept_new_options=True, placeholder="A deployment's name"
        )
        columns = st.columns(3)
        given = [
            column.number_input(f"{label} (USD per million tokens)", value=None, format="%.4f")
            for column, label in zip(columns, ("Input", "Output", "Cached"), strict=True)
        ]
        st.caption("All empty takes the price back to “not set”. Cached empty costs like input.")
        if st.form_submit_button("Set the token price"):
            with errors_shown():
                prices.set_token_price(
                    actor,
                    project_id,
                    model or "",
                    input_usd_per_million_tokens=given[0],
                    output_usd_per_million_tokens=given[1],
                    cached_usd_per_million_tokens=given[2],
                )
                st.rerun()
