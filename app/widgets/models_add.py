"""Add a model, or a version of one, from any source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from app.session import SessionContext
from app.widgets.dialogs import dialog
from app.widgets.layout import errors_shown, escape, open_page
from app.widgets.models_providers import add_hosted_view
from core.kernel.errors import InvalidInput
from core.registry import catalogue
from core.registry import services as registry

HUB, URL, MACHINE = "Hugging Face", "URL", "This machine"
STORE, PROVIDER, CATALOGUE = "Object store", "Hosted provider", "Catalogue"
_FILES = (HUB, URL, MACHINE, STORE)
_SOURCES = (*_FILES, PROVIDER, CATALOGUE)
_FOUND = 8


@dataclass(frozen=True)
class Prefilled:
    """What the dialog begins with.

    Attributes:
        source: Which source is chosen.
        hub_id: The repository of Hugging Face.
        catalogue_id: The entry of the catalogue that the model is.
        model_id: The model that gets a new version; "" for a new model.
        name: What the model is called, where nobody knows a repository of it.
    """

    source: str = HUB
    hub_id: str = ""
    catalogue_id: str | None = None
    model_id: str = ""
    name: str = ""


def add_dialog(context: SessionContext, given: Prefilled | None = None) -> None:
    """Open the dialog."""
    given = given or Prefilled()
    title = "Add a version" if given.model_id else "Add a model"

    @dialog(title, width="medium", icon=":material/add:")
    def _dialog() -> None:
        _body(context, given)

    _dialog()


def _body(context: SessionContext, given: Prefilled) -> None:
    if given.name:
        st.info(
            f"The catalogue knows no repository of {escape(given.name)}. Say where its files are.",
            icon=":material/help:",
        )
    source = st.pills(
        "From",
        _FILES if given.model_id else _SOURCES,
        default=given.source,
        required=True,
        key="add-from",
    )
    if source == PROVIDER:
        add_hosted_view(context)
    elif source == CATALOGUE:
        _from_catalogue()
    else:
        _from_files(context, given, str(source))


def _from_files(context: SessionContext, given: Prefilled, source: str) -> None:
    with st.form(f"add-{source}", border=False):
        start = _FORMS[source](context, given)
        name = None
        if not given.model_id:
            name = st.text_input("Name", given.name, placeholder="automatic", max_chars=120)
        st.caption(
            "The job checks the source, fetches the files, reads what they say, scans them for "
            "danger and saves them. You see each step, and can cancel at any time."
        )
        added = st.form_submit_button("Add", type="primary", icon=":material/add:")
    if added:
        with errors_shown():
            start((name or "").strip() or None)
            st.rerun()


Start = Callable[[str | None], object]


def _hub(context: SessionContext, given: Prefilled) -> Start:
    repository = st.text_input("Hugging Face id", given.hub_id, placeholder="owner/name")
    file = st.text_input(
        "File",
        placeholder="automatic: Q4_K_M or the smallest GGUF, else the whole model",
        help="The name of one GGUF or safetensors file. Without it, a repository with GGUF files "
        "gives one of them, and any other all files of the model's safetensors form.",
    )
    revision = st.text_input(
        "Revision", placeholder="the newest", help="A branch, a tag, or a whole commit."
    )
    return lambda name: registry.add_from_hub(
        context.actor,
        context.project_id,
        repository or "",
        file or None,
        name,
        revision=revision or None,
        model_id=given.model_id or None,
        catalogue_id=given.catalogue_id,
    )


def _url(context: SessionContext, given: Prefilled) -> Start:
    url = st.text_input("URL", placeholder="https://example.org/model.gguf")
    sha256 = st.text_input(
        "SHA-256",
        placeholder="64 hexadecimal digits; recommended",
        help="The download is thrown away when the file has another one.",
    )
    return lambda name: registry.add_from_url(
        context.actor,
        context.project_id,
        url or "",
        name,
        sha256=sha256 or None,
        model_id=given.model_id or None,
    )


def _machine(context: SessionContext, given: Prefilled) -> Start:
    path = st.text_input(
        "Path",
        placeholder="/models/my-model.gguf, or a folder",
        help="A GGUF or safetensors file, or the folder of one model, on the machine that Bud "
        "runs on. It is copied and checked; the original stays as it is.",
    )
    return lambda name: registry.add_local(
        context.actor, context.project_id, _given(path), name, model_id=given.model_id or None
    )


def _store(context: SessionContext, given: Prefilled) -> Start:
    uri = st.text_input(
        "Address",
        placeholder="s3://bucket/folder-of-the-model",
        help="Of the S3 or MinIO that the operator has set up for Bud.",
    )
    return lambda name: registry.add_from_object_store(
        context.actor, context.project_id, uri or "", name, model_id=given.model_id or None
    )


def _given(path: str | None) -> str:
    """The path as given; an empty one is the folder that Bud was started in, which nobody means.

    Raises:
        InvalidInput: There is none.
    """
    given = (path or "").strip()
    if not given:
        raise InvalidInput(
            "No path was given.",
            remedy="Give the path of a model's file or folder on the machine that Bud runs on.",
        )
    return given


_FORMS: dict[str, Callable[[SessionContext, Prefilled], Start]] = {
    HUB: _hub,
    URL: _url,
    MACHINE: _machine,
    STORE: _store,
}


def _from_catalogue() -> None:
    words = st.text_input(
        "Search the catalogue", key="add-search", type="search", live=True, placeholder="qwen3 8b"
    )
    found = catalogue.index().search(words or "", limit=_FOUND)
    for row in found.models.itertuples():
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.markdown(
                f"**{escape(row.name)}** :gray[{escape(row.organisation)}]", width="stretch"
            )
            if st.button("Open", key=f"add-open-{row.id}", icon=":material/arrow_forward:"):
                open_page("model", catalogue=row.id)
    st.caption(
        f"{found.total:,} found. On a model's page you see what it is and what its licence allows, "
        "and add it from there."
    )
