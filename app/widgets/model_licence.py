"""What a model's licence is, who says so, and whether it allows what somebody wants to do."""

from __future__ import annotations

import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets import licences as shown
from app.widgets.layout import empty_state, escape, link_to
from app.widgets.model_subject import Subject
from core.registry import licences

_UNKNOWN_NEXT = (
    "Neither its files nor the catalogue state one. Read the model's page at its source, and paste "
    "the text under Licences."
)


def licence_view(_context: SessionContext, subject: Subject) -> None:
    """The licence, its verdict for the chosen use, and the way to its 22 answers."""
    st.caption(shown.NO_ADVICE)
    stated = subject.licence
    if stated is None:
        empty_state(
            "No licence is known",
            _UNKNOWN_NEXT,
            icon="gavel",
            action="Identify a text",
            page="licences",
        )
        return
    st.markdown(
        f"**{escape(_name(stated.key, stated.stated))}**  \n"
        f":gray[Stated as “{escape(stated.stated)}” by {escape(stated.source or 'its source')}]"
    )
    _disagreement(subject)
    use = shown.stated_use()
    shown.verdict_box(licences.verdict(stated.key, use))
    if stated.key is None:
        link_to("licences", "Identify its text", icon="gavel")
        return
    query = {"id": stated.key}
    link_to(
        "licences",
        "All 22 answers with the words they rest on"
        if licences.is_curated(stated.key)
        else "What is known of this licence",
        icon="gavel",
        query=query,
    )


def _name(key: str | None, stated: str) -> str:
    return licences.licence(key).name if key is not None else f"{stated}: no licence Bud knows"


def _disagreement(subject: Subject) -> None:
    """The files and the catalogue may not say the same; both are shown."""
    entry = subject.entry or {}
    own, other = subject.licence, entry.get("licence_note")
    others = subject.disagreements.get("licence_note", [])
    if own is not None and other and entry.get("licence") != own.key:
        others = [other, *others]
    if others:
        said = ", ".join(escape(str(each)) for each in others)
        st.warning(
            f"Other sources say: {said}. The text that comes with the model's files decides.",
            icon=":material/rule:",
        )
    if subject.version is not None and (file := _licence_file(subject)) != formats.NONE:
        st.caption(f"A licence text came with its files: {escape(file)}.")


def _licence_file(subject: Subject) -> str:
    said = subject.model.extracted.get("licence_file") if subject.model is not None else None
    return str(said) if said else formats.NONE
