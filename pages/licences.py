"""Licences: what each allows, asks for and forbids, and whether it allows a stated use."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app.widgets import (
    Kpi,
    empty_state,
    errors_shown,
    escape,
    formats,
    kpi_row,
    page_header,
    table_with_downloads,
)
from app.widgets import licences as shown
from core.registry import licences
from core.registry.licences.schemas import Identified, Licence

_BROWSE, _COMPARE, _IDENTIFY = "Browse", "Compare", "Identify a text"
_MOST_COMPARED = 3
_ANY = "Any"
_TABLE_PX = 560
_TEXT_PX = 640


def _open(key: str) -> None:
    st.query_params["id"] = key


def _browse(use: licences.Use) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="licence-filters"):
        words = st.text_input(
            "Search", key="words", bind="query-params", type="search", live=True,
            placeholder="Name or owner",
        )  # fmt: skip
        verdict = st.selectbox(
            "Verdict",
            [_ANY, "yes", "conditional", "no", "needs review"],
            key="verdict",
            bind="query-params",
        )
        category = st.selectbox(
            "Category", [_ANY, *_categories()], key="category", bind="query-params"
        )
        everything = st.toggle(
            "Without answers too", key="all", bind="query-params",
            help="Every licence that is known by name; nobody has answered for those.",
        )  # fmt: skip
    keys = list(licences.licences()) if everything else list(licences.curated_keys())
    rows = [
        (licence, licences.verdict(licence.key, use).outcome)
        for licence in map(licences.licence, keys)
        if _matches(licence, words or "") and category in (_ANY, licence.category)
    ]
    found = [row for row in rows if verdict in (_ANY, row[1])]
    if not found:
        empty_state(
            "Nothing matches", "Search for something else, or paste the text.", icon="search"
        )
        return
    chosen = table_with_downloads(
        [_row(licence, outcome) for licence, outcome in found],
        name="licences",
        columns={"Published at": st.column_config.LinkColumn(display_text="open")},
        selectable=True,
        height=_TABLE_PX if len(found) > 14 else None,
    )
    st.caption("Click a row to see the answers, the words they rest on, and the full text.")
    if chosen is not None and chosen < len(found):
        _open(found[chosen][0].key)
        st.rerun()


def _row(licence: Licence, outcome: str) -> dict[str, object]:
    answers = licences.answers(licence.key)
    users, revenue = (
        answers[question].limit if answers else None
        for question in ("user_threshold", "revenue_threshold")
    )
    return {
        "Verdict": outcome,
        "Licence": licence.short_name,
        "Commercial": answers["commercial_use"].reply if answers else formats.NONE,
        "Train on outputs": answers["training_on_outputs"].reply if answers else formats.NONE,
        "Users up to": formats.short_count(users),
        "Revenue up to": f"${formats.short_count(revenue)}" if revenue else formats.NONE,
        "Category": licence.category,
        "Owner": licence.owner,
        "SPDX": licence.spdx,
        "Published at": licence.url or None,
        "Key": licence.key,
    }


def _matches(licence: Licence, words: str) -> bool:
    facts = (licence.name, licence.key, licence.spdx, licence.owner)
    text = " ".join(facts).lower()
    return all(word in text for word in words.lower().split())


def _categories() -> list[str]:
    return sorted({licence.category for licence in licences.licences().values()})


def _detail(key: str) -> None:
    licence = licences.licence(key)
    with st.container(horizontal=True, vertical_alignment="center", key="licence-title"):
        st.markdown(
            f"### {escape(licence.name)}  :gray-badge[{escape(licence.category)}]", width="stretch"
        )
        if st.button("All licences", icon=":material/arrow_back:", type="tertiary"):
            st.query_params.pop("id", None)
            st.rerun()
    _facts(licence)
    if licence.note:
        st.info(escape(licence.note), icon=":material/info:")
    shown.verdict_box(licences.verdict(key, shown.stated_use()))
    views = [name for name, is_there in (
        ("Answers", licences.is_curated(key)), ("Full text", licence.has_text)
    ) if is_there]  # fmt: skip
    if not views:
        return
    view = st.segmented_control(
        "Look at", views, default=views[0], key="look", bind="query-params", required=True,
        label_visibility="collapsed",
    )  # fmt: skip
    if view == "Answers":
        for question, answer in licences.answers(key).items():
            shown.answer_row(question, answer)
    else:
        _full_text(key)


def _facts(licence: Licence) -> None:
    url = f"[{escape(licence.url)}]({licence.url})" if licence.url else ""
    facts = {
        "Key": f"`{licence.key}`",
        "SPDX": escape(licence.spdx),
        "Owner": escape(licence.owner),
        "Released": licence.released,
        "Published at": url,
        "Text from": escape(licence.text_source),
    }
    with st.container(key="licence-facts"):
        st.markdown(" · ".join(f":gray[{name}] {value}" for name, value in facts.items() if value))


def _full_text(key: str) -> None:
    text = licences.text(key)
    st.download_button(
        "Text", text, f"{key}.txt", "text/plain", type="tertiary", icon=":material/download:",
        on_click="ignore",
    )  # fmt: skip
    st.code(text, language=None, wrap_lines=True, height=_TEXT_PX)


def _compare() -> None:
    keys = st.multiselect(
        "Licences",
        licences.curated_keys(),
        default=["apache-2.0", "llama-3.1-license-2024"],
        format_func=lambda key: licences.licence(key).short_name,
        max_selections=_MOST_COMPARED,
        key="compare",
        bind="query-params",
    )
    only_differences = st.toggle(
        "Only where they differ", True, key="differences", bind="query-params"
    )
    if len(keys) < 2:
        empty_state("Choose two or three licences", "They are compared over the 22 questions.")
        return
    rows = shown.comparison(keys, only_differences=only_differences)
    with st.container(horizontal=True, key="licence-compared"):
        for key in keys:
            st.button(
                licences.licence(key).short_name, icon=":material/arrow_forward:", on_click=_open,
                args=(key,), key=f"open-{key}", help="See its quotations and its full text.",
            )  # fmt: skip
    st.table(pd.DataFrame(rows).set_index("Question"))
    st.download_button(
        "CSV", _comparison_csv(keys), "licences-compared.csv", "text/csv", type="tertiary",
        icon=":material/download:", on_click="ignore",
    )  # fmt: skip


def _comparison_csv(keys: list[str]) -> str:
    rows = [
        {
            "licence": key, "question": question, "reply": answer.reply, "impact": answer.impact,
            "section": answer.section, "quotation": answer.quotation,
            "explanation": answer.explanation,
        }
        for key in keys
        for question, answer in licences.answers(key).items()
    ]  # fmt: skip
    return str(pd.DataFrame(rows).to_csv(index=False))


def _identify() -> None:
    with st.form("identify", border=False):
        name = st.text_input(
            "Name or tag", placeholder="llama3.1, Apache-2.0, Meta Llama 4 Community …"
        )
        text = st.text_area(
            "Licence text", height=260, placeholder="Paste the LICENSE file of the model here."
        )
        asked = st.form_submit_button("Identify", type="primary", icon=":material/search:")
    if not asked:
        return
    if (text or "").strip():
        _identified(licences.identify(text))
    elif (name or "").strip():
        _named(name)
    else:
        st.error("Give a name or paste a text.", icon=":material/error:")


def _named(name: str) -> None:
    key = licences.by_id(name)
    if key is None:
        st.warning(
            "Bud does not know this name, or several licences could bear it: paste the text.",
            icon=":material/help:",
        )
        return
    st.success(f"This name means: {escape(licences.licence(key).name)}.", icon=":material/label:")
    _open_button(key)


def _identified(found: Identified | None) -> None:
    if found is None:
        st.warning(
            "This text is near to no licence that Bud has: it needs review by a person.",
            icon=":material/help:",
        )
        return
    name = escape(licences.licence(found.key).name)
    if found.certainty == "exact":
        st.success(f"This is the {name}, word for word.", icon=":material/check_circle:")
    elif found.is_sure:
        st.success(
            f"This is the {name}; only names or copyright lines differ.",
            icon=":material/check_circle:",
        )
    else:
        st.warning(
            f"This is built on the {name}, but words that matter were added or removed. "
            "It needs review: the answers for that licence may not hold.",
            icon=":material/warning:",
        )
    kpi_row(
        [
            Kpi("Similarity", formats.percent(found.similarity)),
            Kpi("Of the licence found", formats.percent(found.coverage)),
            Kpi("Passages added", formats.count(len(found.added))),
            Kpi("Passages missing", formats.count(len(found.removed))),
        ]
    )
    _passages(found)
    st.caption(
        "Next nearest: "
        + ", ".join(
            f"{escape(licences.licence(key).name)} ({formats.percent(share)})"
            for key, share in found.neighbours
        )
    )
    _open_button(found.key)


def _passages(found: Identified) -> None:
    for title, color, passages in (
        ("Added", "red", found.added),
        ("Missing", "orange", found.removed),
    ):
        if passages:
            with st.expander(f"{title} ({len(passages)})", expanded=not found.is_sure):
                for passage in passages:
                    st.markdown(f":{color}-background[{escape(passage)}]")


def _open_button(key: str) -> None:
    st.button("Open the licence", icon=":material/arrow_forward:", on_click=_open, args=(key,))


def main() -> None:
    """Show the page."""
    page_header(
        "Licences", "What a model's licence allows, asks for and forbids, with the words of it."
    )
    st.caption(shown.NO_ADVICE)
    opened = st.query_params.get("id")
    if opened:
        _detail(opened)
        return
    view = st.segmented_control(
        "View", (_BROWSE, _COMPARE, _IDENTIFY), default=_BROWSE, key="do", bind="query-params",
        required=True, label_visibility="collapsed",
    )  # fmt: skip
    if view == _COMPARE:
        _compare()
    elif view == _IDENTIFY:
        _identify()
    else:
        _browse(shown.stated_use())


with errors_shown():
    main()
