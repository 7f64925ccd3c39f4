"""Changing routes: a form, the difference before it is published, versions, going back."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import streamlit as st

from app.widgets import confirm_by_name, dialog, errors_shown, escape, formats, show_error
from app.widgets.gateway_extras import extras
from app.widgets.gateway_routes import POLICIES
from core.deployments import hosted
from core.deployments import services as deployments
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict
from core.routing import rules
from core.routing.schemas import AMONG_TARGETS, Proposal, Rules, RulesView, TargetRule
from gateway.config import Timeouts

_VERSIONS_SHOWN = 20
_SPLITS = {
    "request": "request: drawn anew for each",
    "key": "key: a caller's key always gets the same target (A/B)",
}
_OWN = Timeouts()
# What holds while a route says nothing, in seconds.
_OWN_S = {
    "connect_s": _OWN.connect_s,
    "first_token_s": _OWN.first_byte_s,
    "between_tokens_s": _OWN.between_tokens_s,
    "total_s": _OWN.total_s,
}
# Field → label, and what it bounds.
_TIMEOUTS = {
    "connect_s": ("Connect (s)", "For a connection to a replica."),
    "first_token_s": ("First token (s)", "Up to the first token, or a short answer's end."),
    "between_tokens_s": ("Between tokens (s)", "From one token to the next."),
    "total_s": ("Total (s)", "For the whole request, with all its attempts."),
}


def difference(before: Rules, after: Rules) -> str:
    """What differs, line by line: `-` before, `+` after; "" when nothing does."""
    told = difflib.ndiff(rules.lines(before), rules.lines(after))
    return "\n".join(line for line in told if line[0] in "+-")


def servers(actor: Actor, project_id: str) -> list[str]:
    """The deployments and hosted models that can be targets."""
    own = [view.name for view in deployments.list_deployments(actor, project_id)]
    return sorted([*own, *hosted.names(actor, project_id)])


# -- the form


def rules_form(
    now: Rules, *, key: str, targets: Sequence[str], fallbacks: Sequence[str], is_hosted: bool
) -> Rules | None:
    """Inputs for all rules of a route; None, with the error shown, when they make no sense.

    Numbers have no bounds in the browser, which would drop what is out of them without a word.

    Args:
        now: What the inputs begin with.
        key: Tells several forms apart; another one begins anew.
        targets: What can be a target; empty for the route of a deployment or hosted model.
        fallbacks: What can be a fallback, or get copies of requests.
        is_hosted: Whether a health path can be set.
    """
    given: dict[str, Any] = now.model_dump()
    if targets:
        given["targets"] = _targets(now.targets, targets, key)
        shares = st.empty()
        given["split_by"] = st.segmented_control(
            "Split by", list(_SPLITS), default=now.split_by, required=True, key=f"{key}-split",
            help="; ".join(_SPLITS.values()),
        )  # fmt: skip
    policies = [each for each in POLICIES if targets or each not in AMONG_TARGETS]
    given["policy"] = st.selectbox(
        "Policy", policies, policies.index(now.policy) if now.policy in policies else 0,
        key=f"{key}-policy", format_func=lambda policy: f"{POLICIES[policy]} ({policy})",
        help="How requests are shared among the replicas of one target, and with cheapest among "
        "the targets."
        if targets
        else "How requests are shared among its replicas.",
    )  # fmt: skip
    known = [*fallbacks, *(name for name in now.fallbacks if name not in fallbacks)]
    given["fallbacks"] = st.multiselect(
        "Fallbacks", known, list(now.fallbacks), key=f"{key}-fallbacks",
        placeholder="None: callers get the error",
        help="They answer, in this order, when no target does; up to the first byte.",
    )  # fmt: skip
    given |= _timeouts(now, key)
    if is_hosted:
        given["health_path"] = st.text_input(
            "Health path", now.health_path, key=f"{key}-health", placeholder="Never asked",
            help="Asked at the root of the provider's host, without credentials; such as /health.",
        ).strip()  # fmt: skip
    given |= extras(now, key, fallbacks)
    try:
        made = rules.read(given)
    except BudError as error:
        show_error(error)
        return None
    if targets and made.targets:
        shares.caption(escape(f"Shares: {' · '.join(_share(made, each) for each in made.targets)}"))
    return made


def _share(of: Rules, target: TargetRule) -> str:
    share = of.share(target)
    told = "by price" if share is None else f"{formats.percent(share)}"
    return f"{target.model} {told} of priority {target.priority}"


def _targets(now: Sequence[TargetRule], options: Sequence[str], key: str) -> list[dict[str, Any]]:
    held = {target.model: target for target in now}
    known = [*options, *(name for name in held if name not in options)]
    chosen = st.multiselect(
        "Targets", known, list(held), key=f"{key}-targets",
        placeholder="Deployments and hosted models that answer",
    )  # fmt: skip
    found = []
    for name in chosen:
        rule = held.get(name, TargetRule(model=name))
        weight_column, priority_column = st.columns(2)
        weight = weight_column.number_input(
            f"Weight of {name}", value=rule.weight, step=1.0, format="%g",
            key=f"{key}-weight-{name}",
            help="Its part of the requests beside the others of its priority; 0: no new ones.",
        )  # fmt: skip
        priority = priority_column.number_input(
            f"Priority of {name}", value=rule.priority, key=f"{key}-priority-{name}",
            help="The lowest is used first, the next one when none of it answers.",
        )  # fmt: skip
        found.append({"model": name, "weight": weight or 0.0, "priority": priority or 0})
    return found


def _timeouts(now: Rules, key: str) -> dict[str, float | None]:
    columns = st.columns(len(_TIMEOUTS))
    return {
        field: column.number_input(
            label, value=getattr(now, field), format="%g", step=1.0, key=f"{key}-{field}",
            placeholder=_default(field), help=f"{told} Empty: {_default(field)}.",
        )
        for column, (field, (label, told)) in zip(columns, _TIMEOUTS.items(), strict=True)
    }  # fmt: skip


def _default(field: str) -> str:
    return f"{_OWN_S[field]:g} by default" if math.isfinite(_OWN_S[field]) else "no end by default"


# -- editing one route


def edit_route(actor: Actor, project_id: str, model: str, *, has_targets: bool) -> None:
    """The form of a route, the difference it makes, and the button that publishes it."""
    state = st.session_state.setdefault(f"gateway-edit-{project_id}-{model}", {})
    newest = rules.history(actor, project_id, model)[0]
    seen: RulesView = state.setdefault("seen", newest)
    begun, key = _begun(state, model, newest)
    names = servers(actor, project_id)
    with st.container(border=True, key="route-form"):
        wanted = rules_form(
            begun.rules,
            key=key,
            targets=names if has_targets else (),
            fallbacks=[name for name in _callable(actor, project_id) if name != model],
            is_hosted=model in hosted.names(actor, project_id),
        )
    if newest.version != seen.version:
        _overtaken(state, seen, newest)
        return
    if wanted is None:
        _no_publish_button(newest.version)
        return
    state["entered"] = wanted
    try:
        proposal = rules.propose(actor, project_id, model, wanted)
    except BudError as error:
        show_error(error)
        _no_publish_button(newest.version)
        return
    if _publish_button(actor, project_id, proposal, seen.version):
        _begin_anew(state)
        st.rerun()
    if proposal.changes and st.button("Discard what I entered", key="discard"):
        _begin_anew(state)
        st.rerun()


def _begun(state: dict[str, Any], model: str, newest: RulesView) -> tuple[RulesView, str]:
    """What the inputs begin with, and their key.

    Streamlit forgets inputs that are not drawn: after a look elsewhere they begin with what was
    entered.
    """
    begun: RulesView = state.setdefault("begun", newest)
    key = f"rules-{model}-{begun.version}-"
    times = state.setdefault("times", 0)
    if "entered" not in state or f"{key}{times}-policy" in st.session_state:
        return begun, f"{key}{times}"
    state["times"] = times + 1
    state["begun"] = begun.model_copy(update={"rules": state["entered"]})
    return state["begun"], f"{key}{times + 1}"


def _callable(actor: Actor, project_id: str) -> list[str]:
    return sorted(view.model for view in rules.list_rules(actor, project_id))


def _begin_anew(state: dict[str, Any]) -> None:
    times = state.get("times", 0) + 1
    state.clear()
    state["times"] = times


def _overtaken(state: dict[str, Any], seen: RulesView, newest: RulesView) -> None:
    """Somebody else has published since the form was opened: nothing of either is lost."""
    st.warning(
        f"Version {newest.version} was published by {escape(newest.set_by_name)} "
        f"{formats.ago(newest.set_at)}, while you were editing. What it changed:",
        icon=":material/group:",
    )
    _show_difference(seen.rules, newest.rules)
    with st.container(horizontal=True):
        if st.button("Keep what I entered", type="primary", key="keep-mine"):
            state["seen"] = newest
            st.rerun()
        if st.button("Begin again from theirs", key="take-theirs"):
            _begin_anew(state)
            st.rerun()


def _publish_button(actor: Actor, project_id: str, proposal: Proposal, seen_version: int) -> bool:
    """Show what would change, and publish it on a click; whether it was published."""
    told = difference(proposal.before, proposal.rules)
    if not told:
        st.caption("Nothing is changed yet. What you change is shown here before it is published.")
        return False
    st.markdown("##### What will change")
    st.code(told, language="diff", wrap_lines=True)
    if not st.button(f"Publish version {proposal.version + 1}", type="primary", key="publish"):
        return False
    try:
        made = rules.set_rules(
            actor, project_id, proposal.model, proposal.rules, seen_version=seen_version
        )
    except Conflict:
        st.rerun()  # told, with what the other one changed
    except BudError as error:
        show_error(error)
        return False
    st.toast(f"Version {made.version} holds; the gateway follows within a second.")
    return True


def _no_publish_button(version: int) -> None:
    """Where it would be, while what was entered cannot be published."""
    st.button(f"Publish version {version + 1}", type="primary", key="publish", disabled=True)


def _show_difference(before: Rules, after: Rules) -> None:
    st.code(difference(before, after) or "nothing", language="diff", wrap_lines=True)


# -- a new route, and taking one away


@dialog("New route", width="large", icon=":material/alt_route:")
def new_route(actor: Actor, project_id: str) -> None:
    """A name over several deployments and hosted models."""
    st.caption("A name that callers use as the model; deployments and hosted models answer for it.")
    name = st.text_input("Name", placeholder="Such as chat", max_chars=63, key="new-route-name")
    wanted = rules_form(
        Rules(),
        key="new-route",
        targets=servers(actor, project_id),
        fallbacks=_callable(actor, project_id),
        is_hosted=False,
    )
    name = (name or "").strip()
    if wanted is None:
        _no_publish_button(0)
        return
    if not name or not wanted.targets:
        st.caption("Give it a name and at least one target.")
        return
    try:
        proposal = rules.propose(actor, project_id, name, wanted)
    except BudError as error:
        show_error(error)
        _no_publish_button(0)
        return
    if _publish_button(actor, project_id, proposal, proposal.version):
        st.query_params["route"] = name
        st.rerun()


def confirm_removal(actor: Actor, project_id: str, model: str) -> None:
    """Ask for the name, then take the route away; its versions stay."""
    confirm_by_name(
        model,
        "Its callers get 404. Its targets and its versions stay; it can be brought back.",
        lambda: rules.remove(actor, project_id, model),
        verb="Remove",
    )


# -- versions


def versions(actor: Actor, project_id: str, model: str, *, may_change: bool) -> None:
    """Every version with what it changed, and a button that publishes it again."""
    found = rules.history(actor, project_id, model)
    # Without targets such a name is no route: that is what Remove is for.
    shared = any(view.rules.targets for view in found)
    if len(found) == 1:
        st.caption("Nobody has set its rules: version 0, the gateway's own ways, holds.")
    for newer, older in zip(found[:_VERSIONS_SHOWN], [*found[1:], None], strict=False):
        can = may_change and newer is not found[0] and bool(newer.rules.targets or not shared)
        _version(actor, project_id, newer, older, holds=newer is found[0], may_go_back=can)
    if len(found) > _VERSIONS_SHOWN:
        st.caption(f"All {len(found):,} versions: `bud routes history {escape(model)}`")


def _version(
    actor: Actor,
    project_id: str,
    view: RulesView,
    before: RulesView | None,
    *,
    holds: bool,
    may_go_back: bool,
) -> None:
    with st.container(border=True, key=f"version-{view.version}"):
        with st.container(horizontal=True, vertical_alignment="center"):
            badge = " :green-badge[:material/check_circle: holds]" if holds else ""
            st.markdown(f"**Version {view.version}**{badge}", width="content")
            by = f"{formats.when(view.set_at)} by {escape(view.set_by_name)}"
            st.caption(by if view.set_at else "Before anybody set rules", width="stretch")
            if may_go_back and st.button(
                "Roll back to this", icon=":material/history:", key=f"roll-back-{view.version}"
            ):
                with errors_shown():
                    made = rules.roll_back(actor, project_id, view.model, view.version)
                    st.session_state.pop(f"gateway-edit-{project_id}-{view.model}", None)
                    st.toast(f"Version {view.version} holds again, as version {made.version}.")
                    st.rerun()
        if before is not None:
            _show_difference(before.rules, view.rules)
