"""Closes the navigation that covers the page, once a page of it was chosen.

In a window as narrow as this Streamlit 1.67 lays the sidebar over the page, and leaves it there
unless the browser says that it runs on a phone.
"""

from __future__ import annotations

import streamlit as st

_COVERS_UP_TO_PX = 768
# Streamlit's own closing comes first; a second click would open it again.
_AFTER_MS = 300
_SCRIPT = f"""<script>
if (!window.budSidebar) {{
  window.budSidebar = true;
  const close = () => {{
    const sidebar = document.querySelector('[data-testid="stSidebar"]');
    if (sidebar?.getBoundingClientRect().width > 0)
      document.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click();
  }};
  addEventListener("click", (event) => {{
    const chosen = event.target.closest?.('[data-testid="stSidebarNavLink"]');
    if (chosen && innerWidth <= {_COVERS_UP_TO_PX}) setTimeout(close, {_AFTER_MS});
  }}, true);
}}
</script>"""


def close_after_choice() -> None:
    """Do so from now on; call once a run."""
    st.html(_SCRIPT, unsafe_allow_javascript=True)
