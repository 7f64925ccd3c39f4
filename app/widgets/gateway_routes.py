"""The routes of a project as the gateway serves them now, and one of them in detail."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app import route_words
from app.widgets import (
    Kpi,
    badge_markdown,
    empty_state,
    escape,
    formats,
    kpi_row,
    meaning,
    open_page,
    table_with_downloads,
)
from core.contracts.gateway_state import STALE_S
from core.contracts.route_table import Policy
from core.kernel.actor import Actor
from core.kernel.errors import NotFound
from core.routing import live, rules
from core.routing.schemas import LiveReplica, LiveTarget, RouteView

POLICIES: dict[Policy, str] = {
    "p2c": "the less loaded of two replicas drawn at random; at equal load the quicker one",
    "least_loaded": "the replica with the fewest requests in flight",
    "prefix": "the same replica for the same session or beginning of a prompt: caches are met",
    "fastest": "the replica with the lowest recent time to the first byte",
    "weighted": "a target by weight, and any of its replicas",
    "cheapest": "the target with the lowest price of tokens; weights decide at equal prices",
}
# The same in a few words.
_CHOICES: dict[Policy, str] = {
    "p2c": "Asks the less loaded of two replicas",
    "least_loaded": "Asks the least loaded replica",
    "prefix": "Asks the same replica for the same beginning of a prompt",
    "fastest": "Asks the quickest replica",
    "weighted": "Asks any replica",
    "cheapest": "Asks the cheapest target",
}
KINDS = {"deployment": "deployment", "hosted": "hosted model", "targets": "shared by targets"}
_BREAKERS = {"closed": "closed", "half_open": "half open", "open": "open"}
_SHOWN = 50
_OF_ALL_ROUTES = "Of its replicas, by every route that leads to them."


def route_list(actor: Actor, project_id: str, words: str) -> None:
    """Every route of a project with what it does now; for a fragment that runs again and again."""
    routes = live.list_routes(actor, project_id)
    _kpis(routes)
    if routes and not routes[0].workers:
        stopped_note()
    shown = [route for route in routes if _matches(route, words)]
    if not shown:
        empty_state("Nothing matches", "Search for another route or target.", icon="search")
        return
    for route in shown[:_SHOWN]:
        _card(route)
    if len(shown) > _SHOWN:
        st.caption(f"{len(shown) - _SHOWN:,} more: search for the one you need.")
    st.markdown("#### Traffic by replica")
    st.caption("Since the gateway's workers started; retries are counted as well.")
    replica_table(shown, name="gateway-replicas")


def stopped_note() -> None:
    """Say that no gateway is heard of, and what to do."""
    st.warning(
        f"No gateway worker was heard of in the last {STALE_S:.0f} s: what stands here is what is "
        "published, and live figures are missing. Start the gateway with `bud up`; `bud doctor` "
        "says what is wrong.",
        icon=":material/power_off:",
    )


def _matches(route: RouteView, words: str) -> bool:
    names = [route.model, route.state, route.rules.policy, *(t.model for t in route.targets)]
    text = " ".join(names).lower()
    return all(word in text for word in words.lower().split())


def _kpis(routes: Sequence[RouteView]) -> None:
    replicas = {replica.id: replica for route in routes for replica in route.replicas}
    seen = [replica for replica in replicas.values() if replica.seen]
    workers = routes[0].workers if routes else 0
    opened = sum(replica.breaker != "closed" for replica in seen)
    kpi_row(
        [
            Kpi("Routes", formats.count(len(routes)), "Names that callers can use as the model."),
            Kpi(
                "In flight",
                formats.count(sum(each.in_flight for each in seen)) if workers else None,
                "Requests at the replicas of this project now.",
            ),
            Kpi(
                "Replicas up",
                f"{sum(each.health == 'up' for each in seen)} of {len(replicas)}"
                if workers
                else None,
            ),
            Kpi(
                "Breakers open",
                formats.count(opened) if workers else None,
                "Replicas put aside after failures, those that are probed (half open) included.",
            ),
            Kpi("Workers", formats.count(workers), "Of the gateway, heard of in the last seconds."),
        ],
        key="gateway",
    )


def _card(route: RouteView) -> None:
    with st.container(border=True, key=f"route-{route.model}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            # No link: one to the page itself loses what it adds to the address.
            opened = st.button(
                escape(route.model), icon=":material/alt_route:", key=f"open-{route.model}"
            )
            st.markdown(" ".join(badges(route)), width="stretch")
            st.markdown(_now(route), width="content")
        st.caption(f"{escape(_shared(route))}  \n{escape(_ruled(route))}")
    if opened:
        st.query_params["route"] = route.model
        st.rerun()


def badges(route: RouteView) -> list[str]:
    """State, kind and what is wrong with its replicas, as Markdown."""
    found = [badge_markdown(route.state), f":gray-badge[{KINDS[route.kind]}]"]
    if not route.workers:
        return found
    away = sum(replica.health == "away" for replica in route.replicas)
    opened = sum(replica.breaker != "closed" for replica in route.replicas)
    if away:
        found.append(f":red-badge[:material/heart_broken: {away} away]")
    if opened:
        found.append(f":orange-badge[:material/electric_bolt: {opened} breaker not closed]")
    return found


def _now(route: RouteView) -> str:
    if not route.workers:
        return f":gray[live figures {formats.NONE}]"
    up = sum(replica.seen and replica.health == "up" for replica in route.replicas)
    return f"**{route.in_flight:,}** in flight · **{up}** of {len(route.replicas)} up"


def _shared(route: RouteView) -> str:
    """Which targets answer, with their share and priority."""
    if route.kind != "targets":
        count = len(route.replicas)
        return f"{count} replica{'' if count == 1 else 's'}" if count else "No replica answers now"
    return " · ".join(_part(target) for target in route.targets)


def _part(target: LiveTarget) -> str:
    later = f" at priority {target.priority}" if target.priority else ""
    return f"{target.model} {_share(target)}{later}"


def _share(target: LiveTarget) -> str:
    return "by price" if target.share is None else formats.percent(target.share)


def _price(target: LiveTarget) -> str:
    """USD per million tokens, input and output."""
    given, out = target.input_usd_per_million_tokens, target.output_usd_per_million_tokens
    return "not set" if given is None else f"{formats.usd(given)} / {formats.usd(out)}"


def _ruled(route: RouteView) -> str:
    policy = route.rules.policy
    told = [f"{_CHOICES[policy]} ({policy})"]
    if len(route.replicas) == 1 and route.kind != "targets":
        told = [f"One replica: nothing to choose ({policy} with more)"]
    if route.kind == "targets":
        told.append(f"split by {route.rules.split_by}")
    if route.rules.fallbacks:
        told.append(f"falls back to {', '.join(route.rules.fallbacks)}")
    told += route_words.extras(route.rules)
    if route.workers:
        told.append(f"{route.requests:,} sent, {route.failures:,} failed")
    told.append(f"version {route.version} of its rules" if route.version else "standard rules")
    return " · ".join(told)


def replica_table(routes: Sequence[RouteView], *, name: str) -> None:
    """The replicas behind some routes, each once, as the gateway's workers see them."""
    targets = [target for route in routes for target in route.targets]
    found: dict[str, tuple[str, LiveReplica]] = {}
    for target in targets:
        found |= {replica.id: (target.model, replica) for replica in target.replicas}
    if not found:
        _no_replica(targets, name)
        return
    table_with_downloads(
        [_replica_row(model, replica) for model, replica in found.values()],
        name=name,
        columns={
            "In flight": st.column_config.NumberColumn(help=_OF_ALL_ROUTES),
            "Requests": st.column_config.NumberColumn(format="localized", help=_OF_ALL_ROUTES),
            "Failed": st.column_config.NumberColumn(format="localized", help=_OF_ALL_ROUTES),
            "First byte (ms)": st.column_config.NumberColumn(
                format="%.0f", help="A moving mean up to the first byte of the answer."
            ),
        },
    )


def _no_replica(targets: Sequence[LiveTarget], name: str) -> None:
    """Say so, with the way to the deployment, where it can only be one."""
    deployments = {each.deployment_id: each.model for each in targets if each.deployment_id}
    own = next(iter(deployments.items())) if len(deployments) == 1 else None
    clicked = empty_state(
        "No replica answers now",
        "Start a deployment; its replicas appear here as soon as they are ready.",
        icon="dns",
        action=f"Open {own[1]}" if own else "Open Deployments",
        key=f"replicas-{name}",
    )
    if clicked and own:
        open_page("deployment", id=own[0])
    elif clicked:
        open_page("deployments")


def _replica_row(model: str, replica: LiveReplica) -> dict[str, object]:
    seen = replica.seen
    health = "draining" if replica.draining else replica.health
    return {
        "Replica of": model,
        "Health": health if seen else formats.NONE,
        "Breaker": _BREAKERS[replica.breaker] if seen else formats.NONE,
        "In flight": replica.in_flight if seen else None,
        "Requests": replica.requests if seen else None,
        "Failed": replica.failures if seen else None,
        "First byte (ms)": replica.latency_ms,
        "Id": replica.id,
    }


def route_now(actor: Actor, project_id: str, model: str) -> None:
    """What a route does now; for a fragment that runs again and again."""
    try:
        route = live.get_route(actor, project_id, model)
    except NotFound:
        st.caption("It was taken away.")
        return
    if not route.workers:
        stopped_note()
    up = sum(replica.seen and replica.health == "up" for replica in route.replicas)
    is_live = route.workers > 0
    kpi_row(
        [
            Kpi("In flight", formats.count(route.in_flight) if is_live else None, _OF_ALL_ROUTES),
            Kpi("Replicas up", f"{up} of {len(route.replicas)}" if is_live else None),
            Kpi(
                "Sent",
                formats.count(route.requests) if is_live else None,
                "By this route to its targets, since the gateway's workers started.",
            ),
            Kpi(
                "Failed",
                formats.count(route.failures) if is_live else None,
                "Got no answer from that target; another one may have given it.",
            ),
            Kpi("Version", formats.count(route.version), "Of its rules; 0 while nobody set any."),
        ],
        key="route",
    )
    if route.kind == "targets":
        st.markdown("#### Targets")
        table_with_downloads(
            [_target_row(target, is_live=is_live) for target in route.targets],
            name=f"targets-{model}",
            columns={
                "USD/M in / out": st.column_config.TextColumn(
                    help="The price of a million tokens, in and out, as set on the page Settings."
                )
            },
        )
    st.markdown("#### Replicas")
    replica_table([route], name=f"replicas-{model}")
    st.markdown("#### Rules")
    st.caption(f"Asks {POLICIES[route.rules.policy]} (policy {route.rules.policy}).")
    st.code("\n".join(rules.lines(route.rules)), language=None)
    if route.set_at is not None:
        st.caption(f"Set {formats.when(route.set_at)} by {escape(route.set_by_name)}.")


def _target_row(target: LiveTarget, *, is_live: bool) -> dict[str, object]:
    return {
        "Target": target.model,
        "Priority": target.priority,
        "Share": _share(target),
        "Weight": target.weight,
        "USD/M in / out": _price(target),
        "State": target.state,
        "Replicas up": f"{target.up} of {len(target.replicas)}" if is_live else formats.NONE,
        "In flight": target.in_flight if is_live else None,
        "Sent": target.requests if is_live else None,
        "Failed": target.failures if is_live else None,
    }


def route_header_purpose(route: RouteView) -> str:
    """What a route is, in a line."""
    return f"{meaning(route.state)} It can do: {', '.join(route.capabilities)}."
