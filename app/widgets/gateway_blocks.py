"""Blocking rules: whose requests the gateway refuses; made, changed and taken away."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from app.widgets import (
    confirm_by_name,
    dialog,
    empty_state,
    escape,
    formats,
    show_error,
    table_with_downloads,
)
from core.access import services as access
from core.access.schemas import BlockConditions, BlockView
from core.kernel.actor import Actor
from core.kernel.errors import BudError, Conflict
from core.kernel.settings import settings

_HERE, _EVERYWHERE = "This project", "Every project"
# Condition → label, what to write, and what it is compared with.
_CONDITIONS = {
    "networks": ("IP addresses", "203.0.113.0/24", "Addresses or CIDR ranges, IPv4 or IPv6."),
    "countries": ("Countries", "KP", "Two-letter codes, as a trusted proxy gives them."),
    "user_agents": ("User agents", "scrapy", "Part of the User-Agent header, in any case."),
    "user_agent_patterns": (
        "User agent patterns", r"bot/\d", "Regular expressions (RE2), found anywhere in it.",
    ),
    "paths": ("Paths", "/v1/completions", "Whole paths, or their beginnings with * at the end."),
}  # fmt: skip


def told(conditions: BlockConditions) -> str:
    """What a rule refuses, in words."""
    return " and ".join(
        f"{_CONDITIONS[kind][0].lower()} {' or '.join(values)}"
        for kind, values in conditions.model_dump(exclude_defaults=True).items()
    )


def block_list(actor: Actor, project_id: str) -> None:
    """The rules that hold in a project; a chosen one can be changed or taken away."""
    found = access.list_blocks(actor, project_id)
    may_add = actor.may("block:update", project_id)
    if may_add and st.button("New rule", type="primary", icon=":material/add:"):
        _dialog(actor, project_id, None)
    if not found:
        empty_state(
            "No blocking rule",
            "Only keys and limits refuse requests now. A rule refuses them by address, country, "
            "user agent or path, whatever key they have."
            if may_add
            else "Only keys and limits refuse requests now. An admin of the project can set rules.",
            icon="block",
        )
        return
    chosen = table_with_downloads(
        [
            {
                "Name": rule.name,
                "Holds in": _EVERYWHERE.lower() if not rule.project_id else "this project",
                "Refuses": told(rule.conditions),
                "Set by": rule.set_by_name,
                "Set": rule.set_at,
                "Id": rule.id,
            }
            for rule in found
        ],
        name="blocking-rules",
        columns={
            "Refuses": st.column_config.TextColumn(width="large"),
            "Set": st.column_config.DatetimeColumn(format="distance"),
            "Id": None,
        },
        selectable=True,
    )
    st.caption("What they refused stands under Errors, with the rule's name.")
    if chosen is None or chosen >= len(found):
        st.caption("Click a row to see a rule whole, to change it or to take it away.")
        return
    _details(actor, found[chosen])


def _details(actor: Actor, rule: BlockView) -> None:
    with st.container(border=True, key="block-details"):
        st.markdown(f"**{escape(rule.name)}** refuses {escape(told(rule.conditions))}")
        where = "in every project" if not rule.project_id else "in this project"
        by = f"Set {formats.when(rule.set_at)} by {escape(rule.set_by_name)}, {where}."
        if not actor.may("block:update", rule.project_id or None):
            st.caption(f"{by} An admin can change it.")
            return
        st.caption(by)
        with st.container(horizontal=True):
            if st.button("Change …", icon=":material/edit:"):
                _dialog(actor, rule.project_id, rule)
            if st.button("Delete …", icon=":material/delete:"):
                confirm_by_name(
                    rule.name,
                    "What it refused is let in again, within a second.",
                    lambda: access.delete_block(actor, rule.id),
                )


@dialog("Blocking rule", width="medium", icon=":material/block:")
def _dialog(actor: Actor, project_id: str, rule: BlockView | None) -> None:
    """A new rule, or another form of one there is."""
    st.caption("A request is refused when it meets one of each kind of condition that is given.")
    with st.form("block", border=False):
        name = rule.name if rule else _name()
        where = project_id
        if rule is None and actor.is_admin:
            chosen = st.segmented_control(
                "Holds in", [_HERE, _EVERYWHERE], default=_HERE, required=True
            )
            where = project_id if chosen == _HERE else access.EVERYWHERE
        now: Mapping[str, tuple[str, ...]] = rule.conditions.model_dump() if rule else {}
        given = {kind: _lines(kind, now.get(kind, ())) for kind in _CONDITIONS}
        if not st.form_submit_button("Save" if rule else "Set the rule", type="primary"):
            return
    try:
        if rule is None:
            _check_new(actor, project_id, where, name.strip())
        access.set_block(actor, where, name, **given)
    except BudError as error:
        show_error(error)
        return
    st.rerun()


def _check_new(actor: Actor, project_id: str, where: str, name: str) -> None:
    """Raises Conflict: a rule has this name, and would be replaced unseen."""
    for rule in access.list_blocks(actor, project_id):
        if (rule.project_id, rule.name) == (where, name):
            raise Conflict(
                f"There is a rule {name!r} already.",
                remedy="Choose another name; or close this, and click its row to change it.",
            )


def _name() -> str:
    return st.text_input("Name", placeholder="Such as no-scrapers; callers are told", max_chars=80)


def _lines(kind: str, now: tuple[str, ...]) -> list[str]:
    label, example, what = _CONDITIONS[kind]
    if kind == "countries" and not settings().country_header:
        what += " No country is known here until BUD_COUNTRY_HEADER is set."
    text = st.text_area(
        label, "\n".join(now), placeholder=f"One a line, such as {example}", help=what, height=68
    )
    return [line.strip() for line in (text or "").splitlines() if line.strip()]
