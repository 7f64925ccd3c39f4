"""One model of a leaderboard: why it stands where it does, its licence, and where to go on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import pandas as pd
import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets import leaderboards_charts as own_charts
from app.widgets.layout import escape, link_to, open_page
from app.widgets.model_subject import USE
from app.widgets.tables import table_with_downloads
from app.widgets.wizard import begin
from core.leaderboards import services as leaderboards
from core.leaderboards.schemas import Evidence, Ranking
from core.registry import licences, relatives
from core.registry import services as registry
from core.simulation import services as simulation

_LOOKS = {
    "yes": "green-badge[:material/check_circle: allowed]",
    "conditional": "orange-badge[:material/rule: allowed with conditions]",
    "no": "red-badge[:material/block: not allowed]",
    "needs review": "gray-badge[:material/help: needs review]",
}
_MOST_REASONS = 6


def model_card(context: SessionContext, found: Ranking, model: pd.Series) -> None:
    """A row of a ranking, explained."""
    key, name = model["id"], str(model["name"])
    with st.container(border=True, key="leaderboard-model"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(f"#### {model['position']}. {escape(name)}", width="stretch")
            if key is not None:
                _ways_on(context, found, model)
        st.markdown(_summary(found, model))
        if found.query.use:
            licence_verdict(model["licence"], found.query.use)
        subject = key or name
        rows = leaderboards.evidence(context.actor, context.project_id, subject, found.query.task)
        evidence_table(rows, name="leaderboard-evidence")


def _summary(found: Ranking, model: pd.Series) -> str:
    used = sum(board.weight > 0 for board in found.boards)
    parts = [
        f"Score **{model['score']:.1f}**, between {model['low']:.1f} and {model['high']:.1f}; on "
        f"{model['boards']} of {used} board{'' if used == 1 else 's'}"
    ]
    size = own_charts.size_label(model["parameters"])
    if size != formats.NONE:
        parts.append(f"{size} parameters")
    if not pd.isna(model["usd_per_million_tokens"]):
        usd = escape(formats.usd(model["usd_per_million_tokens"]))
        parts.append(f"{usd} per million tokens")
    if isinstance(model["licence"], str):
        parts.append(f"licence {escape(model['licence'])}")
    return " · ".join(parts)


def _ways_on(context: SessionContext, found: Ranking, model: pd.Series) -> None:
    key, name = str(model["id"]), str(model["name"])
    use = {USE: found.query.use} if found.query.use else {}
    if st.button("Compare", icon=":material/compare_arrows:", key="lb-compare"):
        open_page("compare", models=[key, *_neighbour(found.table, key)], **use)
    hub_id = leaderboards.facts_of([key])["hub_id"].iloc[0]
    if st.button("What if", icon=":material/tune:", key="lb-what-if"):
        known = simulated(context, key, hub_id)
        if known is not None:
            open_page("what_if", model=known)
        st.toast(f"The simulator does not know the architecture of {name}.")
    why_not = why_not_deployable(model["open_weights"], hub_id)
    if why_not and _own_model(context, key) is not None:
        why_not = ""
    if st.button(
        "Deploy",
        type="primary",
        icon=":material/rocket_launch:",
        key="lb-deploy",
        disabled=bool(why_not),
        help=why_not or None,
    ):
        deploy(context, key, name, hub_id)
    model_links(key, found.query.use)


def why_not_deployable(is_open: object, hub_id: object) -> str:
    """Why nobody can be led to a model's files; empty when its weights or repository are known."""
    if isinstance(hub_id, str) or (_known(is_open) and bool(is_open)):
        return ""
    if _known(is_open):
        return "Its weights are not published: it can only be used where it is hosted."
    return (
        "Bud knows neither a repository nor published weights of it. If you have its files, add "
        "them on the Models page with Add model."
    )


def _known(value: Any) -> bool:
    return value is not None and not pd.isna(value)


def _neighbour(table: pd.DataFrame, key: str) -> list[str]:
    """The model to compare one with: the next in rank, for the last the one before; or none."""
    keys = [str(each) for each in table["id"].dropna()]
    at = keys.index(key)
    return keys[at + 1 : at + 2] or keys[max(at - 1, 0) : at]


def model_links(key: str, use: str = "") -> None:
    """To the model's own page, which judges its licence for the same use."""
    query = {"id": key, USE: use} if use else {"id": key}
    link_to("model", "Open model", icon="deployed_code", query=query)


def simulated(context: SessionContext, key: str, hub_id: object) -> str | None:
    """The simulator's id of a model, by its hub id or canonical id; None when it has none."""
    names = (hub_id, key, key.partition("/")[2])
    return simulation.known_model(
        context.actor, [each for each in names if each and isinstance(each, str)]
    )


def deploy(context: SessionContext, key: str, name: str, hub_id: object) -> NoReturn:
    """To the wizard when the project has the model's files, else to where they are added."""
    own = _own_model(context, key)
    if own is not None:
        begin(context.actor, context.project_id, own)
    if isinstance(hub_id, str):
        open_page("models", add=hub_id)
    open_page("models", add_named=name)


def _own_model(context: SessionContext, key: str) -> str | None:
    """The id of the project's own model with files of this catalogue entry; None without one."""
    models = registry.list_models(context.actor, context.project_id)
    ready = (model for model in models if model.state == "ready")
    return next((model.id for model in ready if relatives.catalogue_id(model) == key), None)


def licence_verdict(licence: object, use: str) -> None:
    """What a licence says of a use, with what it asks for."""
    key = licence if isinstance(licence, str) else None
    found = licences.verdict(key, licences.USES[use])
    st.markdown(f":{_LOOKS[found.outcome]} {escape(use)}: {escape(found.summary)}")
    for reason in [each for each in found.reasons if each.effect != "allows"][:_MOST_REASONS]:
        where = f" (section {escape(reason.section)})" if reason.section else ""
        st.markdown(f"- {escape(reason.text)}{where}")
    if key is not None:
        query = {"id": key, USE: use}
        link_to("licences", f"All answers for {key}", icon="gavel", query=query)


def evidence_table(rows: Sequence[Evidence], *, name: str) -> None:
    """Published figures with their rank, date and source."""
    table_with_downloads(
        [
            {
                "Board": each.board,
                "Table": each.variant,
                "Figure": each.metric,
                "Value": each.score,
                "Unit": each.unit,
                "Rank": f"{each.rank} of {each.of}",
                "Counts": each.standing,
                "Published as": each.published_name,
                "Date": each.date,
                "Source": each.source_url or None,
                "Model page": each.link or None,
                "Read from": each.source,
            }
            for each in rows
        ],
        name=name,
        columns=EVIDENCE_COLUMNS,
        height=min(300, 38 + 35 * max(1, len(rows))),
    )


EVIDENCE_COLUMNS: dict[str, Any] = {
    "Value": st.column_config.NumberColumn(format="%.4g"),
    "Source": st.column_config.LinkColumn(
        display_text="open", help="The files that the figure was read from, as they were."
    ),
    "Model page": st.column_config.LinkColumn(
        display_text="open", help="What the board links the model to."
    ),
    "Counts": st.column_config.TextColumn(
        help="Whether it enters the combined score. Of several results of a model in one "
        "benchmark the best does; copies of other boards and what vendors report of themselves "
        "never do."
    ),
}
