"""Settings: prices, encryption keys, and what this installation runs with."""

from __future__ import annotations

import json

import streamlit as st

from app import session
from app.widgets import (
    confirm_by_name,
    empty_state,
    errors_shown,
    page_header,
    price_settings,
    table_with_downloads,
)
from core.kernel import audit, keys
from core.kernel.keys import keyring
from core.kernel.settings import Settings, settings

context = session.current()
actor = context.actor
_AUDIT_ROWS = 500
_ROTATED = "settings-rotated"


def _installation() -> None:
    st.caption(
        "Set by `BUD_…` variables or the `.env` file; a change takes effect at the next start."
    )
    present = settings()
    rows = [
        {
            "Variable": f"BUD_{name.upper()}",
            "Value": str(getattr(present, name)),
            "From": "set" if name in present.model_fields_set else "default",
            "What it does": field.description,
        }
        for name, field in Settings.model_fields.items()
    ]
    table_with_downloads(
        rows, name="settings", columns={"What it does": st.column_config.Column(width="large")}
    )


def _rotate(*, wrapping_key: bool) -> None:
    key_id = keys.rotate(actor, wrapping_key=wrapping_key)
    st.session_state[_ROTATED] = (
        f"Every data key is wrapped anew, the former RSA key is gone. New values: {key_id}."
        if wrapping_key
        else f"New values are sealed with {key_id}; the old ones stay readable."
    )


def _encryption() -> None:
    if _ROTATED in st.session_state:
        st.success(st.session_state.pop(_ROTATED), icon=":material/check_circle:")
    st.markdown(
        "Every credential is sealed with AES-256-GCM. The data key is wrapped by an RSA-4096 key, "
        "and each sealed value names the key it needs."
    )
    st.markdown("Present data key")
    st.code(keyring().current_key_id, language=None)
    st.markdown("Folder of the keys: back it up together with the database")
    st.code(str(settings().keys_folder), language=None, wrap_lines=True)
    with st.container(horizontal=True):
        if st.button("Rotate the data key", icon=":material/autorenew:"):
            _rotate(wrapping_key=False)
            st.rerun()
        if st.button("Replace the wrapping key …", icon=":material/lock_reset:"):
            confirm_by_name(
                "wrapping key",
                "A new RSA-4096 key is made, every data key is wrapped with it, and the former "
                "one is deleted: backups of the keys folder from before no longer fit.",
                lambda: _rotate(wrapping_key=True),
                verb="Replace",
            )


def _audit() -> None:
    st.caption(f"The newest {_AUDIT_ROWS} changes, by anybody, in every project.")
    rows = [
        {
            "When": row.at,
            "Who": row.user_name,
            "Action": row.action,
            "Subject": row.subject,
            "Details": json.dumps(row.details) if row.details else "",
        }
        for row in audit.entries(actor, None, limit=_AUDIT_ROWS)
    ]
    table_with_downloads(
        rows,
        name="audit",
        columns={
            "When": st.column_config.DatetimeColumn(format="distance"),
            "Details": st.column_config.Column(width="large"),
        },
    )


def _admins_only(title: str) -> bool:
    if not actor.is_admin:
        empty_state(title, "Ask an admin to look it up for you.", icon="lock", key=title)
    return actor.is_admin


def main() -> None:
    """Show the page."""
    page_header("Settings", "What things cost, how secrets are kept, and who changed what.")
    prices, encryption, installation, log = st.tabs(
        ["Prices", "Encryption", "Installation", "Audit"]
    )
    with prices:
        price_settings.render(context)
    with encryption:
        if _admins_only("Only admins manage the encryption keys"):
            _encryption()
    with installation:
        if _admins_only("Only admins see how this installation is set up"):
            _installation()
    with log:
        if _admins_only("Only admins see who changed what"):
            _audit()


with errors_shown():
    main()
