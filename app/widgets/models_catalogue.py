"""The view of the shipped catalogue: search, facets, pages of rows, saved views, downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets import models_query as query
from app.widgets.layout import Kpi, empty_state, errors_shown, escape, kpi_row, open_page
from app.widgets.model_subject import USE
from app.widgets.models_facets import CSS, facets, ranges_in_address
from app.widgets.tables import downloads
from core.registry import annotations as notes
from core.registry import catalogue, licences
from core.registry.catalogue_index import Found

_STAR = "★"
_TABLE = "table-catalogue"
_OPEN = "catalogue-open"
VERDICT_MARKS = {
    "yes": "✓ allowed",
    "conditional": "◐ conditions",
    "no": "✕ not allowed",
    "needs review": "? needs review",
}
_KIND = "catalogue:"


@st.fragment
def catalogue_view(context: SessionContext) -> None:
    """What the catalogue holds of what is asked; runs again alone when a filter changes."""
    st.html(CSS)
    with errors_shown():
        _view(context)


def _view(context: SessionContext) -> None:
    words, sort, use = _search_row(context)
    tags = _tags(context)
    favourites = _favourites(context)
    number = query.count_chosen()
    st.toggle(f"Filters ({number})" if number else "Filters", key="facets-shown")
    left, right = st.columns([1, 3.3], gap="medium")
    with left:
        is_shown = bool(st.session_state.get("facets-shown"))
        key = "catalogue-facets-open" if is_shown else "catalogue-facets-shut"
        with st.container(key=key), st.container(key="catalogue-facets"):
            ranges = ranges_in_address()
            facets_at = st.container()
    among = _among(favourites, tags)
    offset = (query.page_number() - 1) * query.PAGE_ROWS
    found = query.search(words, use, ranges, sort, among, limit=query.PAGE_ROWS, offset=offset)
    if found.total and found.models.empty:
        # The address names a page beyond the last.
        query.first_page()
        st.rerun(scope="fragment")
    with facets_at:
        facets(query.counts(found, use), len(favourites), _counted(tags))
    with right:
        _found(context, found, use, favourites, tags)
        if found.total:
            _below(
                found,
                lambda: _rows(
                    query.search(words, use, ranges, sort, among, limit=found.total).models,
                    use,
                    favourites,
                    tags,
                ),
            )


def _search_row(context: SessionContext) -> tuple[str, str, str]:
    with st.container(horizontal=True, vertical_alignment="bottom", key="catalogue-search"):
        words = st.text_input(
            "Search",
            key="q",
            bind="query-params",
            type="search",
            live=True,
            placeholder="Name, maker, family or any published name",
            on_change=query.first_page,
        )
        use = st.selectbox(
            "Licence for",
            list(licences.USES),
            key="use",
            bind="query-params",
            help="What you want to do; verdicts are for this use. No legal advice.",
            width=300,
        )
        sort = st.selectbox(
            "Order",
            list(query.SORTS),
            key="sort",
            bind="query-params",
            on_change=query.first_page,
            width=160,
        )
        _saved_views(context)
    first_use, first_sort = next(iter(licences.USES)), next(iter(query.SORTS))
    return words or "", sort or first_sort, use or first_use


def _tags(context: SessionContext) -> dict[str, list[str]]:
    """The tags of entries, by canonical id."""
    found = notes.tags(context.actor, context.project_id)
    return {key.removeprefix(_KIND): tags for key, tags in found.items() if key.startswith(_KIND)}


def _favourites(context: SessionContext) -> set[str]:
    found = notes.favourites(context.actor, context.project_id)
    return {key.removeprefix(_KIND) for key in found if key.startswith(_KIND)}


def _counted(tags: Mapping[str, list[str]]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for each in tags.values():
        for tag in each:
            counted[tag] = counted.get(tag, 0) + 1
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _among(favourites: set[str], tags: Mapping[str, list[str]]) -> set[str] | None:
    """The only models that favourites and tags leave; None when neither is asked for."""
    asked = []
    if query.chosen(query.MARKED):
        asked.append(favourites)
    wanted = set(query.chosen(query.TAG))
    if wanted:
        asked.append({key for key, each in tags.items() if wanted & set(each)})
    return set.intersection(*asked) if asked else None


def _found(
    context: SessionContext,
    found: Found,
    use: str,
    favourites: set[str],
    tags: Mapping[str, list[str]],
) -> None:
    _kpis(found, use)
    _chosen_row(found)
    if not found.total:
        empty_state(
            "No model fits",
            "Take a filter away, or search for another name. A model that is not in the catalogue "
            "can be added from its source.",
            icon="search_off",
        )
        return
    _table(context, _rows(found.models, use, favourites, tags), favourites, use)


def _table(context: SessionContext, rows: pd.DataFrame, favourites: set[str], use: str) -> None:
    ids = [str(each) for each in rows["id"]]
    # Ticks are kept by row number: other rows are another table. Over clicks it stays the same
    # one, and it tells all of its ticks each time, so of quick clicks none is lost.
    key = f"{_TABLE}-{hash(tuple(ids))}"
    st.data_editor(
        rows,
        hide_index=True,
        placeholder=formats.NONE,
        column_config=_COLUMNS,
        disabled=[each for each in rows.columns if each != _STAR],
        key=key,
        height=38 + 35 * min(len(rows), 18),
        on_change=_mark,
        args=(context, key, ids, favourites),
    )
    opened = st.session_state.get(_OPEN)
    if opened is not None and opened.row < len(ids):
        open_page("model", catalogue=ids[opened.row], **{USE: use})


def _mark(context: SessionContext, key: str, ids: Sequence[str], favourites: set[str]) -> None:
    for model_id, marked in ticked(st.session_state[key]["edited_rows"], ids).items():
        if marked != (model_id in favourites):
            notes.set_favourite(
                context.actor, context.project_id, f"{_KIND}{model_id}", marked=marked
            )


def ticked(edits: Mapping[int, Mapping[str, Any]], ids: Sequence[str]) -> dict[str, bool]:
    """Which models were marked or unmarked, of all edits that a table tells by row number."""
    return {
        ids[int(row)]: bool(edit[_STAR])
        for row, edit in edits.items()
        if _STAR in edit and int(row) < len(ids)
    }


def _kpis(found: Found, use: str) -> None:
    counts = query.counts(found, use)
    allowed = _left(counts, query.VERDICT, ("yes", "conditional"))
    kpi_row(
        [
            Kpi("Models", formats.count(found.total), _MOVING_HELP, _in_all()),
            Kpi("Open weights", formats.count(_left(counts, "weights", ("yes",)))),
            Kpi(
                "Licence allows it",
                formats.count(allowed),
                f"{use}: allowed, or allowed with conditions. Unknown licences do not count.",
            ),
            Kpi(
                "A host is known",
                formats.count(_left(counts, "hosted", ("hosted",))),
                "Some provider serves it over an API.",
            ),
        ],
        key="catalogue",
    )


_MOVING_HELP = (
    "A moving name, such as gemini-flash-latest, is one that its maker brings from model to model. "
    "No source says which one it means now, so it stands for itself and counts apart."
)


def _in_all() -> str:
    ids = catalogue.models()["id"]
    moving = int(ids.map(catalogue.is_moving).sum())
    return f"of {len(ids) - moving:,} and {moving} moving names"


def _left(counts: Mapping[str, Mapping[str, int]], name: str, values: tuple[str, ...]) -> int:
    """How many of the found models have one of these values of a facet."""
    wanted = query.chosen(name)
    return sum(counts[name].get(value, 0) for value in values if not wanted or value in wanted)


def _chosen_row(found: Found) -> None:
    """What is chosen, and words that were read as others."""
    number = query.count_chosen()
    if not number and not found.corrected:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if number:
            st.button(
                f"Clear {number} filter{'' if number == 1 else 's'}",
                icon=":material/filter_alt_off:",
                type="tertiary",
                on_click=query.clear,
            )
        for asked, read in found.corrected.items():
            st.caption(f"Nothing is called “{escape(asked)}”: shown is “{escape(read)}”.")


_COLUMNS: dict[str, Any] = {
    _STAR: st.column_config.CheckboxColumn(width=52, help="Tick a favourite of yours."),
    "Model": st.column_config.ButtonColumn(
        width=190, type="tertiary", alignment="left", key=_OPEN, help="Click a name to open it."
    ),
    "Maker": st.column_config.TextColumn(width=115),
    "Licence says": st.column_config.TextColumn(
        width=115, help="For the use that is chosen above. No legal advice."
    ),
    "Parameters": st.column_config.NumberColumn(format="compact", width=85),
    "Context": st.column_config.NumberColumn(
        format="compact", width=75, help="Tokens of the longest conversation."
    ),
    "Input": st.column_config.NumberColumn(
        format="dollar",
        width=75,
        help="USD per million input tokens at the host that is cheapest for three parts "
        "input and one part output.",
    ),
    "Output": st.column_config.NumberColumn(
        format="dollar", width=75, help="USD per million output tokens at the same host."
    ),
    "Hosts": st.column_config.NumberColumn(width=60, help="Providers with a known price."),
    "Released": st.column_config.TextColumn(width=90),
    "Can do": st.column_config.TextColumn(width=150),
    "Weights": st.column_config.TextColumn(width=75),
    "Licence": st.column_config.TextColumn(width=130),
    "Gives": st.column_config.TextColumn(width=90),
    "Takes": st.column_config.TextColumn(width=120),
}


def _rows(
    models: pd.DataFrame, use: str, favourites: set[str], tags: Mapping[str, list[str]]
) -> pd.DataFrame:
    keys = [None if key is pd.NA else str(key) for key in models["licence"]]
    return pd.DataFrame(
        {
            _STAR: [key in favourites for key in models["id"]],
            "Model": [
                f"{row.name} (moving name)" if catalogue.is_moving(row.id) else row.name
                for row in models[["id", "name"]].itertuples()
            ],
            "Licence says": [VERDICT_MARKS[query.outcome(key, use)] for key in keys],
            "Maker": models["organisation"],
            "Parameters": models["parameters"],
            "Context": models["context_tokens"],
            "Input": models["usd_per_million_input"],
            "Output": models["usd_per_million_output"],
            "Hosts": models["hosts"],
            "Released": models["release_date"],
            "Can do": [_abilities(row) for row in models[[*query.ABILITIES]].itertuples()],
            "Weights": models["open_weights"].map({True: "open", False: "closed"}),
            "Licence": models["licence_note"],
            "Gives": [", ".join(each) for each in models["modalities_out"]],
            "Takes": [", ".join(each) for each in models["modalities_in"]],
            "Family": models["family"],
            "Tags": [", ".join(tags.get(key, ())) for key in models["id"]],
            "Cheapest host": models["cheapest_host"],
            "id": models["id"],
        }
    )


def _abilities(row: Any) -> str:
    return ", ".join(name for name in query.ABILITIES if getattr(row, name) is True)


def _below(found: Found, whole: Any) -> None:
    """The way to other pages, and the downloads of all that was found."""
    pages = -(-found.total // query.PAGE_ROWS)
    page = min(query.page_number(), pages)
    first = (page - 1) * query.PAGE_ROWS + 1
    last = min(page * query.PAGE_ROWS, found.total)
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="pager"):
        for label, icon, to in (
            ("Previous", ":material/chevron_left:", page - 1),
            ("Next", ":material/chevron_right:", page + 1),
        ):
            st.button(
                label,
                icon=icon,
                disabled=not 1 <= to <= pages,
                on_click=_go_to_page,
                args=(to,),
                key=f"page-{label}",
            )
        st.caption(
            f"Rows {first:,} to {last:,} of {found.total:,}. Click a name to open it, tick "
            f"{_STAR} to mark it.",
            width="content",
        )
    rows = f"{found.total:,} row{'' if found.total == 1 else 's'}"
    downloads(whole, name="catalogue", rows=rows)


def _go_to_page(number: int) -> None:
    st.query_params["page"] = str(number)


def _saved_views(context: SessionContext) -> None:
    actor, project_id = context.actor, context.project_id
    views = notes.saved_views(actor, project_id, "models")
    with st.popover(f"Views ({len(views)})", icon=":material/bookmarks:"):
        for view in views:
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.button(
                    view.name,
                    key=f"view-{view.id}",
                    type="tertiary",
                    on_click=query.restore,
                    args=(view.query,),
                )
                st.caption(f"{escape(view.by_name)}, shared" if view.shared else "only you")
                mine = view.user_id == actor.user_id or actor.may("model:govern", project_id)
                if mine and st.button(
                    "", icon=":material/delete:", key=f"unview-{view.id}", help="Delete this view"
                ):
                    notes.delete_view(actor, view.id)
                    st.rerun(scope="fragment")
        if not views:
            st.caption("None yet. Keep the words and filters you see now under a name.")
        with st.form("save-view", border=False, clear_on_submit=True):
            name = st.text_input("Name of this view", max_chars=80)
            shared = st.checkbox("Everybody in the project sees it")
            if st.form_submit_button("Save", icon=":material/bookmark_add:"):
                with errors_shown():
                    notes.save_view(
                        actor, project_id, "models", name or "", query.as_dict(), shared=shared
                    )
                    st.rerun(scope="fragment")
