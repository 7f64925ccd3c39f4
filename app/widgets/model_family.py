"""The family tree of a model: base, fine-tunes, quantisations, adapters, merges."""

from __future__ import annotations

import html
from urllib.parse import quote

import streamlit as st

from app.session import SessionContext
from app.widgets.layout import empty_state, escape
from app.widgets.model_subject import Subject
from core.registry import catalogue, relatives
from core.registry import services as registry
from core.registry.family import Node

_RELATIONS = {
    "finetune": "fine-tune",
    "quantized": "quantisation",
    "adapter": "adapter",
    "merge": "merge",
}
_MOST = 60
_CSS = """<style>
.bud-family ul { list-style: none; margin: 0 0 0 .6rem; padding: 0 0 0 .9rem;
  border-left: 1.5px solid #8885; }
.bud-family > ul { border: 0; padding: 0; margin: 0; }
.bud-family li { margin: .3rem 0 !important; overflow-wrap: anywhere; }
.bud-family i { font-style: normal; font-size: .78rem; opacity: .75; border: 1px solid #8886;
  border-radius: 9px; padding: 0 .45rem; margin-left: .4rem; white-space: nowrap; }
.bud-family .here { font-weight: 650; }
.bud-family a { color: light-dark(#0b7a55, #3ecf9a) !important; text-decoration: none; }
.bud-family a:hover { text-decoration: underline; }
</style>"""


def family_view(context: SessionContext, subject: Subject) -> None:
    """Where the model stands among its relatives."""
    node = subject.id if subject.model is None else relatives.node_id(subject.model)
    family = relatives.family_of(context.actor, context.project_id, node)
    if not family.root.children and not family.ancestors:
        empty_state(
            "No relatives are known",
            "Neither its files nor the catalogue name a model it was made from, or one that was "
            "made from it.",
            icon="account_tree",
        )
        return
    if family.cycle:
        st.warning(
            f"These claim to be made from each other: {escape(', '.join(family.cycle))}.",
            icon=":material/sync_problem:",
        )
    if family.other_bases:
        others = ", ".join(family.other_bases)
        st.caption(f"It was merged from further models too: {escape(others)}.")
    names = _names(context)
    budget = [_MOST]
    tree = _item(family.root, node, names, budget, is_root=True)
    st.html(f'{_CSS}<div class="bud-family"><ul>{tree}</ul></div>')
    if budget[0] <= 0:
        st.caption(f"The first {_MOST} are shown.")
    st.caption(
        "Bases are what model cards and file headers name; of the catalogue's entries, what its "
        "sources name (MTEB, Hugging Face once it was refreshed), else what the names say: a "
        "quantisation of a model, an instruction-tuned model of its base."
    )


def _names(context: SessionContext) -> dict[str, tuple[str, str]]:
    """Name and link of the project's models, by their id in the tree."""
    models = registry.list_models(context.actor, context.project_id)
    return {
        relatives.node_id(model): (model.name, f"model?id={quote(model.id)}") for model in models
    }


def _item(
    node: Node,
    here: str,
    names: dict[str, tuple[str, str]],
    budget: list[int],
    *,
    is_root: bool = False,
) -> str:
    if budget[0] <= 0:
        return ""
    budget[0] -= 1
    children = "".join(_item(child, here, names, budget) for child in node.children)
    relation = "" if is_root else _RELATIONS.get(node.relation or "", "made from it")
    mark = f"<i>{relation}</i>" if relation else ""
    if not node.is_known:
        mark += "<i>not in the catalogue</i>"
    below = f"<ul>{children}</ul>" if children else ""
    is_here = node.id.casefold() == here.casefold()
    return f"<li>{_link(node, names, is_here=is_here)}{mark}{below}</li>"


def _link(node: Node, names: dict[str, tuple[str, str]], *, is_here: bool) -> str:
    name, link = names.get(node.id, (node.id, f"model?catalogue={quote(node.id)}"))
    if is_here:
        return f'<span class="here" aria-current="page">{html.escape(name)}</span>'
    is_linked = node.id in names or catalogue.has(node.id)
    if not is_linked:
        return f"<span>{html.escape(name)}</span>"
    return f'<a href="{html.escape(link)}" target="_self">{html.escape(name)}</a>'
