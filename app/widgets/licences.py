"""How licences are shown: replies, verdicts, answers with their quotations, the stated use."""

from __future__ import annotations

import html
from typing import Any

import streamlit as st

from app.widgets.layout import escape
from app.widgets.model_subject import USE
from core.registry import licences
from core.registry.licences.schemas import Answer, Reason, Verdict

NO_ADVICE = (
    "This is no legal advice. The answers were written from the texts and no lawyer has reviewed "
    "them; each quotes the words it rests on, so that you can check it."
)
_OWN_USE = "Another use"
_OUTCOMES = {
    "yes": ("green", "check_circle"),
    "conditional": ("orange", "rule"),
    "no": ("red", "block"),
    "needs review": ("gray", "help"),
}
_EFFECTS = {
    "blocks": ("red", "block", "Not allowed"),
    "unclear": ("orange", "help", "To be checked"),
    "requires": ("orange", "rule", "What to do"),
    "allows": ("green", "check_circle", "Allowed"),
}
_USERS_STEP, _REVENUE_STEP = 1_000_000, 1_000_000


def outcome_badge(outcome: str) -> str:
    """A verdict as a badge in Markdown."""
    color, icon = _OUTCOMES[outcome]
    return f":{color}-badge[:material/{icon}: {outcome}]"


def reply_badge(question: str, answer: Answer) -> str:
    """A reply as a badge in Markdown: green where it is good for the user, red where it is not."""
    return f":{_color(question, answer)}-badge[{answer.reply}]"


def _color(question: str, answer: Answer) -> str:
    if licences.QUESTIONS[question].is_permission:
        return {"yes": "green", "conditional": "orange", "no": "red"}[answer.reply]
    if answer.reply == "no":
        return "green"
    return {"none": "gray", "low": "gray", "medium": "orange", "high": "red"}[answer.impact]


def stated_use() -> licences.Use:
    """The use that the person states, in the URL: one of those made beforehand, or their own."""
    with st.container(border=True, key="licence-use"):
        name = st.selectbox(
            "What do you want to do?",
            [*licences.USES, _OWN_USE],
            key=USE,
            bind="query-params",
            help="The verdict on every licence is for this use.",
        )
        if name in licences.USES:
            return licences.USES[name]
        return _own_use()


def _own_use() -> licences.Use:
    with st.container(horizontal=True, key="licence-use-numbers"):
        users = st.number_input(
            "Monthly users", 0, None, None, _USERS_STEP, key="users", bind="query-params",
            placeholder="not known", help="Active users a month of all products of the business.",
        )  # fmt: skip
        revenue = st.number_input(
            "Revenue, USD a year", 0, None, None, _REVENUE_STEP, key="revenue",
            bind="query-params", placeholder="not known", help="Of the business as a whole.",
        )  # fmt: skip
    with st.container(horizontal=True, key="licence-use-flags"):
        flags = {
            field: st.toggle(label, default, key=key, bind="query-params", help=help_text)
            for field, label, default, key, help_text in (
                ("commercial", "Commercial", True, "commercial", "Work inside a company counts."),
                ("modifies", "Fine-tune or change it", False, "modifies", None),
                ("distributes", "Give it to others", False, "distributes", "As files."),
                ("hosts_api", "Offer it over a network", False, "hosts", "A product or an API."),
                ("trains_on_outputs", "Train on its outputs", False, "trains", None),
                ("in_eu", "Based in the EU", False, "eu", None),
            )
        }
    return licences.Use(monthly_users=users, annual_revenue_usd=revenue, **flags)


def verdict_box(verdict: Verdict) -> None:
    """The verdict, and every reason with its section and quotation."""
    with st.container(border=True, key="licence-verdict"):
        st.markdown(f"#### For this use: {outcome_badge(verdict.outcome)}")
        st.markdown(escape(verdict.summary))
        weighty = [reason for reason in verdict.reasons if reason.effect != "allows"]
        for reason in weighty:
            _reason(reason)
        allowed = [reason for reason in verdict.reasons if reason.effect == "allows"]
        if allowed:
            with st.expander(f"What it allows ({len(allowed)})", icon=":material/check_circle:"):
                for reason in allowed:
                    _reason(reason)


def _reason(reason: Reason) -> None:
    color, icon, label = _EFFECTS[reason.effect]
    title = licences.QUESTIONS[reason.question].title
    st.markdown(
        f":{color}[:material/{icon}: **{label}**] · **{title}** · {escape(reason.text)}  \n"
        f"{quoted(reason.section, reason.quotation)}"
    )


def quoted(section: str, quotation: str) -> str:
    """A quotation with its section, as Markdown; "" where the text is silent."""
    return f":gray[{escape(section)}: “{escape(quotation)}”]" if quotation else ""


def answer_row(question: str, answer: Answer) -> None:
    """One question with its answer, quotation and the place in the text."""
    found = licences.QUESTIONS[question]
    with st.container(border=True, key=f"answer-{question}", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            impact = "" if answer.impact == "none" else f" :gray[{answer.impact} impact]"
            st.markdown(
                f"**{found.title}** {reply_badge(question, answer)}{impact}  \n"
                f":gray[{escape(found.asks)}]",
                width="stretch",
            )
            if not answer.silent:
                with st.popover("In the text", icon=":material/article:", type="tertiary"):
                    _in_the_text(answer)
        st.markdown(
            f"{escape(answer.explanation)}  \n{quoted(answer.section, answer.quotation)}".strip()
        )


def _in_the_text(answer: Answer) -> None:
    before, words, after = licences.passage(answer.document, answer.quotation)
    st.caption(f"{licences.licence(answer.document).name}, {answer.section}")
    st.html(
        '<div style="white-space: pre-wrap; font-size: .9rem; max-width: 36rem">'
        f"… {html.escape(before)}<mark>{html.escape(words)}</mark>{html.escape(after)} …</div>"
    )


def comparison(keys: list[str], *, only_differences: bool) -> list[dict[str, Any]]:
    """Rows of a table that compares licences, in Markdown: a question, then each licence."""
    by_key = {key: licences.answers(key) for key in keys}
    rows = []
    for question, asked in licences.QUESTIONS.items():
        found = [by_key[key][question] for key in keys]
        if only_differences and len({(answer.reply, answer.explanation) for answer in found}) == 1:
            continue
        cells = {
            licences.licence(key).short_name: f"{reply_badge(question, answer)} "
            f"{escape(answer.explanation)} :gray[{escape(answer.section)}]"
            for key, answer in zip(keys, found, strict=True)
        }
        rows.append({"Question": f"**{asked.title}**", **cells})
    return rows
