"""The limits of a project with what is used of them now; made, changed and taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from app import limit_usage
from app.widgets import (
    confirm_by_name,
    dialog,
    empty_state,
    errors_shown,
    escape,
    formats,
    table_with_downloads,
)
from core.accounts import api_keys
from core.accounts.schemas import ApiKeyView
from core.contracts.route_table import LimitLevel, LimitMetric, LimitWindow, WhenAlone
from core.kernel import clock
from core.kernel.actor import Actor
from core.kernel.errors import InvalidInput
from core.kernel.settings import settings
from core.limits import services as limits
from core.limits.schemas import LimitView
from core.routing import rules

_LEVELS: dict[LimitLevel, str] = {
    "project": "The whole project",
    "key": "An API key",
    "user": "A person, over all of their keys",
    "model": "A route or model",
}
_CHOOSE: dict[LimitLevel, str] = {
    "key": "Choose the key.",
    "user": "Choose the person whose keys it is for.",
    "model": "Choose the route or model.",
}
_NEAR = 0.8


def _counted() -> dict[str, tuple[LimitMetric, LimitWindow]]:
    """What can be limited, as people read it."""
    return {
        f"{limit_usage.UNITS[metric]}{f' per {window}' if window else ''}": (metric, window)
        for metric, windows in limits.WINDOWS.items()
        for window in windows
    }


def limit_list(actor: Actor, project_id: str) -> None:
    """The limits that the actor may see, with what is used; a chosen one can be changed."""
    keys = api_keys.list_keys(actor, project_id) if actor.may("key:read", project_id) else []
    names = subject_names(keys)
    may_change = actor.may("limit:update", project_id)
    found = limits.list_limits(actor, project_id)
    if not may_change:
        found = [limit for limit in found if _holds_for(actor, limit, keys)]
    with st.container(horizontal=True):
        if may_change and st.button("New limit", type="primary", icon=":material/add:"):
            _new_dialog(actor, project_id, keys)
        if found:
            # Not by itself: a row that was chosen, or its input, would be lost.
            st.button("Refresh", icon=":material/refresh:", help="Read anew what is used now.")
    if not found:
        _nothing(may_change)
        return
    chosen = _table(found, names)
    if not may_change:
        st.caption("These hold for you: the project's, its models', your keys' and your own.")
        return
    if chosen is None or chosen >= len(found):
        st.caption("Click a row to change a limit or to take it away.")
        return
    _details(actor, found[chosen], names)


def subject_names(keys: Sequence[ApiKeyView]) -> dict[str, str]:
    """Names of keys and of the people who made them, by id."""
    return {key.user_id: key.made_by for key in keys} | {
        key.id: f"{key.name} (bud-…{key.last_four})" for key in keys
    }


def _holds_for(actor: Actor, limit: LimitView, keys: Sequence[ApiKeyView]) -> bool:
    own = {key.id for key in keys if key.user_id == actor.user_id} | {actor.user_id}
    return limit.level in ("project", "model") or limit.subject in own


def _nothing(may_change: bool) -> None:
    empty_state(
        "No limit yet",
        "Requests, tokens and USD are unlimited. Set a limit for the project, a key, a person or "
        "a model." if may_change else "Requests, tokens and USD are unlimited for you. An admin "
        "of the project can set limits.",
        icon="speed",
    )  # fmt: skip


def _table(found: Sequence[LimitView], names: Mapping[str, str]) -> int | None:
    used = limit_usage.used_now(found)
    if None in used:
        st.info("No gateway has counted anything here yet: it begins with the first request.")
    if settings().valkey_url is not None:
        st.caption("Used counts this host's requests; the limit holds over all hosts.")
    return table_with_downloads(
        [_row(limit, names, now) for limit, now in zip(found, used, strict=True)],
        name="limits",
        columns={
            "Used": st.column_config.ProgressColumn(
                "Used", format="percent", min_value=0.0, max_value=1.0,
                help="Of the present window: the last minute, hour or day; for USD the calendar's, "
                "in UTC. With what requests in flight hold.",
            ),
            "Set by": None,
            "Set": None,
            "Id": None,
        },
        selectable=True,
    )  # fmt: skip


def _row(limit: LimitView, names: Mapping[str, str], used: float | None) -> dict[str, object]:
    share = None
    if used is not None:
        share = min(used / limit.amount, 1.0) if limit.amount else 1.0
    return {
        "Limits": limit.level,
        "Of": _subject(limit, names),
        "At most": limit_usage.told(limit),
        "Used": share,
        "Used now": _amount(limit.metric, used),
        "State": _state(share),
        "Set by": limit.set_by_name,
        "Set": limit.set_at,
        "Id": limit.id,
    }


def _subject(limit: LimitView, names: Mapping[str, str]) -> str:
    if limit.level == "project":
        return "everything"
    return names.get(limit.subject, limit.subject)


def _amount(metric: LimitMetric, used: float | None) -> str:
    if used is None:
        return formats.NONE
    return formats.usd(used) if metric == "usd" else f"{used:,.0f}"


def _state(share: float | None) -> str:
    if share is None:
        return formats.NONE
    if share >= 1:
        return "reached: refuses"
    return "near its end" if share >= _NEAR else "has room"


def _details(actor: Actor, limit: LimitView, names: Mapping[str, str]) -> None:
    with st.container(border=True, key="limit-details"):
        told = limit_usage.told(limit)
        of = (
            "the whole project"
            if limit.level == "project"
            else (f"{limit.level} {_subject(limit, names)}")
        )
        st.markdown(f"**{escape(of)}**: {escape(told)}")
        st.caption(f"Set {formats.when(limit.set_at)} by {escape(limit.set_by_name)}.")
        _change_form(actor, limit)
        if st.button("Delete …", icon=":material/delete:"):
            confirm_by_name(
                f"{limit.level} {told}",
                "Nothing holds in its place, within a second.",
                lambda: limits.delete_limit(actor, limit.id),
            )


def _change_form(actor: Actor, limit: LimitView) -> None:
    # A form: the click brings what was typed, and a button that waits for it loses the click.
    with (
        st.form(f"limit-change-{limit.id}", border=False),
        st.container(horizontal=True, vertical_alignment="bottom"),
    ):
        unit = limit_usage.UNITS[limit.metric]
        per = f" per {limit.window}" if limit.window else ""
        # Without bounds: a number out of them would stay in the browser, unsaid.
        amount = st.number_input(
            f"At most ({unit}{per})", value=limit.amount, format="%g", width=220,
            key=f"limit-amount-{limit.id}-{limit.amount}", help="0 stops everything.",
        )  # fmt: skip
        alone = _when_alone(limit.when_alone, key=f"limit-alone-{limit.id}")
        if not st.form_submit_button("Save", type="primary"):
            return
    if amount == limit.amount and alone == limit.when_alone:
        st.toast("Nothing is changed: the limit is as it was.")
        return
    with errors_shown():
        limits.set_limit(
            actor, limit.project_id, limit.level, limit.subject, limit.metric, limit.window,
            amount, when_alone=alone,
        )  # fmt: skip
        st.rerun()


def _when_alone(now: WhenAlone, *, key: str) -> WhenAlone:
    """What holds while hosts cannot reach each other; asked only where there are several."""
    if settings().valkey_url is None:
        return now
    chosen = st.segmented_control(
        "When hosts cannot reach each other", ["refuse", "share"], default=now, required=True,
        key=key, help="refuse: nothing is admitted. share: each host goes on with its part.",
    )  # fmt: skip
    return "refuse" if chosen == "refuse" else "share"


@dialog("New limit", width="medium", icon=":material/speed:")
def _new_dialog(actor: Actor, project_id: str, keys: Sequence[ApiKeyView]) -> None:
    level = st.selectbox(
        "What is limited", list(_LEVELS), format_func=lambda each: _LEVELS[each], key="limit-level"
    )
    subject = _subject_input(actor, project_id, level, keys)
    counted = _counted()
    what = st.selectbox("What is counted", list(counted), key="limit-counted")
    metric, window = counted[what]
    present = _present(actor, project_id, level, subject, metric, window)
    if present is not None:
        st.info(
            f"There is one already: {escape(limit_usage.told(present))}. A new amount replaces it."
        )
    # A form: the click brings what was typed, and a button that waits for it loses the click.
    with st.form("new-limit", border=False):
        amount = st.number_input(
            f"At most ({what})", value=None, format="%g", key=f"limit-new-{metric}",
            placeholder="Such as 5.00" if metric == "usd" else "Such as 600",
            help="0 stops everything.",
        )  # fmt: skip
        alone = _when_alone("refuse" if metric == "usd" else "share", key=f"limit-alone-{metric}")
        verb = "Set the limit" if present is None else "Replace the limit"
        if not st.form_submit_button(verb, type="primary", key="set-new-limit"):
            return
    with errors_shown():
        limits.set_limit(
            actor, project_id, level, _chosen(subject, level), metric, window,
            _given(amount, what), when_alone=alone,
        )  # fmt: skip
        st.rerun()


def _present(
    actor: Actor,
    project_id: str,
    level: LimitLevel,
    subject: str | None,
    metric: LimitMetric,
    window: LimitWindow,
) -> LimitView | None:
    """The limit that a new one of these would replace."""
    for limit in limits.list_limits(actor, project_id):
        same = level == "project" or limit.subject == subject
        if same and (limit.level, limit.metric, limit.window) == (level, metric, window):
            return limit
    return None


def _chosen(subject: str | None, level: LimitLevel) -> str:
    if subject is None:
        raise InvalidInput("Whose limit it is is not chosen.", remedy=_CHOOSE[level])
    return subject


def _given(amount: float | None, what: str) -> float:
    if amount is None:
        raise InvalidInput(
            f"“At most ({what})” is empty.", remedy="Give an amount; 0 stops everything."
        )
    return amount


def _subject_input(
    actor: Actor, project_id: str, level: LimitLevel, keys: Sequence[ApiKeyView]
) -> str | None:
    """The id of what is limited; None while nothing is chosen."""
    if level == "project":
        return ""
    if level == "model":
        models = [view.model for view in rules.list_rules(actor, project_id)]
        return st.selectbox("Which route or model", models, index=None, key="limit-model")
    active = [key for key in keys if _is_active(key)]
    names = subject_names(active)
    people = sorted({key.user_id for key in active})
    options = [key.id for key in active] if level == "key" else people
    label = "Which key" if level == "key" else "Whose keys"
    if not options:
        st.caption("There is no active API key yet: make one on the API keys page.")
        return None
    return st.selectbox(
        label, options, index=None, format_func=lambda each: names[each], key=f"limit-{level}"
    )


def _is_active(key: ApiKeyView) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > clock.now())
