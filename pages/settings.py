"""Settings: prices, encryption keys, and what this installation runs with."""

from __future__ import annotations

import streamlit as st

from app import session
from app.widgets import page_header, price_settings
from core.kernel import audit
from core.kernel.actor import Actor
from core.kernel.errors import BudError
from core.kernel.keys import keyring
from core.kernel.settings import Settings, settings

context = session.current()


def _installation(actor: Actor) -> None:
    if not actor.is_admin:
        st.info("Only admins see how this installation is set up.")
        return
    st.caption("Set by BUD_… variables or the .env file; a change takes effect at the next start.")
    present = settings()
    st.dataframe(
        [
            {
                "Variable": f"BUD_{name.upper()}",
                "Value": str(getattr(present, name)),
                "Default": "yes" if name not in present.model_fields_set else "changed",
                "What it does": field.description,
            }
            for name, field in Settings.model_fields.items()
        ],
        hide_index=True,
    )


def _encryption(actor: Actor) -> None:
    if not actor.is_admin:
        st.info("Only admins manage the encryption keys.")
        return
    st.write(
        "Credentials are sealed with AES-256-GCM; the data key is wrapped by an RSA-4096 key. "
        f"Both lie in `{settings().keys_folder}`: back that folder up with the database."
    )
    try:
        st.markdown(f"Present data key: `{keyring().current_key_id}`")
        if st.button("Rotate the data key", icon=":material/autorenew:"):
            st.success(f"New values are sealed with {keyring().rotate()}; old ones stay readable.")
        if st.button("Rotate the wrapping key too", icon=":material/lock_reset:"):
            keyring().rotate(wrapping_key=True)
            st.success("Every data key is wrapped anew; the old RSA key is gone.")
    except BudError as error:
        st.error(str(error))


def _audit(actor: Actor) -> None:
    if not actor.is_admin:
        st.info("Only admins see who changed what.")
        return
    rows = audit.entries(actor, None, limit=500)
    st.dataframe(
        [
            {
                "When": row.at,
                "Who": row.user_name,
                "Action": row.action,
                "Subject": row.subject,
                "Details": ", ".join(f"{key}={value}" for key, value in row.details.items()),
            }
            for row in rows
        ],
        column_config={"When": st.column_config.DatetimeColumn(format="distance")},
        hide_index=True,
    )


page_header("Settings", "What things cost, how secrets are kept, and who changed what.")
prices, encryption, installation, log = st.tabs(["Prices", "Encryption", "Installation", "Audit"])
with prices:
    price_settings.render(context)
with encryption:
    _encryption(context.actor)
with installation:
    _installation(context.actor)
with log:
    _audit(context.actor)
