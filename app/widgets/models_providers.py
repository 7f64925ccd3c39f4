"""Accounts at providers of hosted models: add, test, rotate, delete; and add their models."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from app import formats
from app.session import SessionContext
from app.widgets.dialogs import confirm_by_name, dialog
from app.widgets.layout import errors_shown, escape
from core.kernel.crypto import Secret
from core.registry import providers
from core.registry import services as registry
from core.registry.schemas import ProviderKind, ProviderRequest, ProviderView

_NEW = "new"
_CHOSEN = "add-account"
_OWN_NAME = "Name of the model at the provider"


def add_hosted_view(context: SessionContext) -> None:
    """Choose an account, or add one; then choose of the models it lists."""
    accounts = {view.id: view for view in _accounts(context)}
    may_add = context.actor.may("provider:create", context.project_id)
    if not accounts and not may_add:
        st.info(
            "This project has no account at a provider yet. Its admin can add one here.",
            icon=":material/info:",
        )
        return
    # Set by the form below once the account it adds was tested.
    added = st.session_state.pop("add-account-next", None)
    if added in accounts:
        st.session_state[_CHOSEN] = added
    chosen = st.selectbox(
        "Account",
        [*accounts, *([_NEW] if may_add else [])],
        format_func=lambda each: accounts[each].name if each in accounts else "New account …",
        key=_CHOSEN,
    )
    if chosen in accounts:
        _choose_models(context, accounts[chosen])
    else:
        _new_account(context)


def _accounts(context: SessionContext) -> list[ProviderView]:
    return providers.list_providers(context.actor, context.project_id)


def _new_account(context: SessionContext) -> None:
    kinds = {kind.id: kind for kind in providers.kinds()}
    kind = kinds[
        st.selectbox("Provider", list(kinds), format_func=lambda each: kinds[each].name)
        or next(iter(kinds))
    ]
    with st.form(f"account-{kind.id}", border=False):
        options = {
            name: st.text_input(label, key=f"account-{kind.id}-{name}")
            for name, label in kind.options.items()
        }
        base_url = st.text_input(
            "Base URL",
            placeholder=kind.base_url or "https://models.example.org/v1",
            help="Leave it empty to use the provider's own.",
            key=f"account-{kind.id}-url",
        )
        secrets = credential_inputs(kind, key=f"account-{kind.id}")
        name = st.text_input("Name", placeholder=kind.name, max_chars=80)
        saved = st.form_submit_button("Test and save", type="primary", icon=":material/key:")
    if not saved:
        return
    request = ProviderRequest(
        kind=kind.id,
        credentials=secrets,
        options={name: value or "" for name, value in options.items()},
        base_url=base_url or None,
        name=name or None,
    )
    with errors_shown(), st.spinner(f"Asking {kind.name} for its models …"):
        view = providers.add_provider(context.actor, context.project_id, request)
        st.session_state["add-account-next"] = view.id
        st.rerun(scope="fragment")


def credential_inputs(kind: ProviderKind, *, key: str) -> dict[str, Secret]:
    """Inputs for the secrets of a kind of provider; what is typed is never shown again."""
    found = {}
    for name, label in kind.credentials.items():
        if name == "service_account":
            typed = st.text_area(label, key=f"{key}-{name}", height=120)
        else:
            typed = st.text_input(
                label, type="password", key=f"{key}-{name}", autocomplete="new-password"
            )
        found[name] = Secret(typed or "")
    st.caption("Kept encrypted, tested now by asking for the list of models, never shown again.")
    return found


def _choose_models(context: SessionContext, account: ProviderView) -> None:
    _last_check(account)
    kind = next(kind for kind in providers.kinds() if kind.id == account.kind)
    listed = {model.id: model for model in account.models}
    with st.form(f"hosted-{account.id}", border=False):
        names = st.multiselect(
            "Models",
            list(listed),
            format_func=lambda each: _label(each, listed[each].context_tokens),
            placeholder=f"{len(listed):,} listed; type a name",
        )
        own = "" if kind.lists_all else st.text_input(_OWN_NAME, help=_why_own(kind))
        added = st.form_submit_button("Add", type="primary", icon=":material/add:")
    if not added:
        return
    wanted = [*names, *([own] if own else [])]
    if not wanted:
        st.error("Choose at least one model.", icon=":material/error:")
        return
    with errors_shown():
        for name in wanted:
            registry.add_hosted(context.actor, account.id, name)
        st.rerun()


def _label(name: str, context_tokens: int | None) -> str:
    return f"{name} · {formats.tokens(context_tokens)}" if context_tokens else name


def _why_own(kind: ProviderKind) -> str:
    return f"{kind.name} does not list all that can be called, such as deployments of your own."


def _last_check(account: ProviderView) -> None:
    if account.check_error:
        st.warning(
            f"The last test, {formats.ago(account.checked_at)}, failed: "
            f"{escape(account.check_error)}",
            icon=":material/warning:",
        )


def accounts_view(context: SessionContext, models_of: Mapping[str, int]) -> None:
    """The project's accounts with what can be done about each.

    Args:
        context: Who looks.
        models_of: How many models of the registry use each account.
    """
    accounts = _accounts(context)
    if not accounts:
        return
    title = f"Provider accounts ({len(accounts)})"
    with st.expander(title, icon=":material/key:", key="provider-accounts"):
        for account in accounts:
            _account(context, account, models_of.get(account.id, 0))


def _account(context: SessionContext, account: ProviderView, models: int) -> None:
    actor, mark = context.actor, ":green[:material/check_circle:]"
    if account.check_error:
        mark = ":red[:material/error:]"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(
            f"{mark} **{escape(account.name)}** :gray[{escape(account.base_url)} · "
            f"{len(account.models):,} listed, {models} in use · tested "
            f"{formats.ago(account.checked_at)} · key of {formats.ago(account.rotated_at)}]",
            width="stretch",
        )
        if not actor.may("provider:update", context.project_id):
            return
        if st.button("Test", key=f"test-{account.id}", icon=":material/refresh:"):
            with errors_shown():
                providers.test_provider(actor, account.id)
                st.rerun()
        if st.button("New key …", key=f"rotate-{account.id}", icon=":material/key:"):
            _rotate(context, account)
        if st.button("", key=f"drop-{account.id}", icon=":material/delete:", help="Delete …"):
            confirm_by_name(
                account.name,
                "Its key is deleted here. At the provider it stays valid: end it there too.",
                lambda: providers.delete_provider(actor, account.id),
            )
    _last_check(account)


@dialog("New key", icon=":material/key:")
def _rotate(context: SessionContext, account: ProviderView) -> None:
    kind = next(kind for kind in providers.kinds() if kind.id == account.kind)
    with st.form(f"rotate-{account.id}", border=False):
        secrets = credential_inputs(kind, key=f"rotate-{account.id}")
        saved = st.form_submit_button("Test and save", type="primary")
    if saved:
        with errors_shown():
            providers.rotate_credentials(context.actor, account.id, secrets)
            st.rerun()
