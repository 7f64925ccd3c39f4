"""What people of the project say of a model: tags and comments."""

from __future__ import annotations

import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets.dialogs import dialog
from app.widgets.layout import errors_shown, escape
from app.widgets.model_subject import Subject
from core.registry import annotations as notes
from core.registry.schemas import CommentView


def notes_view(context: SessionContext, subject: Subject) -> None:
    """Tags, then the comments with a form for a new one."""
    _tags(context, subject)
    st.markdown("**Comments**")
    comments = notes.comments(context.actor, context.project_id, subject.annotated)
    if not comments:
        st.caption("None yet. Say what you tried it for, and how it did.")
    for comment in comments:
        _comment(context, comment)
    with st.form("new-comment", clear_on_submit=True, border=False):
        text = st.text_area("New comment", max_chars=4000)
        if st.form_submit_button("Comment", icon=":material/send:"):
            with errors_shown():
                notes.add_comment(context.actor, context.project_id, subject.annotated, text or "")
                st.rerun()


def _tags(context: SessionContext, subject: Subject) -> None:
    actor, project_id = context.actor, context.project_id
    had = notes.tags(actor, project_id).get(subject.annotated, [])
    known = sorted({*notes.tag_counts(actor, project_id), *had})
    wanted = st.multiselect(
        "Tags",
        known,
        default=had,
        accept_new_options=True,
        placeholder="Choose, or type a new one",
        help="Everybody in the project sees them; the Models page finds by them.",
        # Others may have changed them: what is kept is what is shown.
        key=f"tags-{subject.annotated}-{'-'.join(had)}",
    )
    if sorted(wanted) != sorted(had):
        with errors_shown():
            notes.set_tags(actor, project_id, subject.annotated, wanted)
            st.rerun()


def _comment(context: SessionContext, comment: CommentView) -> None:
    actor = context.actor
    with st.container(border=True, key=f"comment-{comment.id}", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            edited = ", edited" if comment.edited_at else ""
            st.markdown(
                f"**{escape(comment.by_name)}** :gray[{formats.ago(comment.created_at)}{edited}]",
                width="stretch",
            )
            mine = comment.user_id == actor.user_id
            if mine and st.button(
                "", icon=":material/edit:", key=f"edit-{comment.id}", help="Edit", type="tertiary"
            ):
                _edit(context, comment)
            if (mine or actor.may("model:govern", context.project_id)) and st.button(
                "", icon=":material/delete:", key=f"rm-{comment.id}", help="Delete", type="tertiary"
            ):
                with errors_shown():
                    notes.delete_comment(actor, comment.id)
                    st.rerun()
        st.markdown(escape(comment.text))


@dialog("Edit the comment", icon=":material/edit:")
def _edit(context: SessionContext, comment: CommentView) -> None:
    text = st.text_area("Comment", comment.text, max_chars=4000, key=f"text-{comment.id}")
    if st.button("Save", type="primary", key="comment-save"):
        with errors_shown():
            notes.edit_comment(context.actor, comment.id, text or "")
            st.rerun()
