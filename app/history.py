"""Lets the browser's Back button lead to the page before as it was.

On the way to another page Streamlit 1.67 adds entries to the history: the page before with the
queries of the next one, then the next page. Back then leads to a view that never was. Here entries
of one page in quick succession become one, and the next page takes the place of the last of them.

What this cannot mend: a name in the address that inputs of both pages are bound to. Streamlit takes
it for the left page's, and drops it. So leaderboards, licences and models share no such name.
"""

from __future__ import annotations

import streamlit as st

_SAME_PAGE_WITHIN_MS = 1_000
# The next page comes when the server has begun to run it.
_NEXT_PAGE_WITHIN_MS = 10_000
_SCRIPT = f"""<script>
if (!window.budHistory) {{
  window.budHistory = true;
  const push = history.pushState.bind(history);
  let last = null;
  addEventListener("popstate", () => {{ last = null; }}, true);
  history.pushState = (state, unused, url) => {{
    const to = new URL(url ?? location.href, location.href);
    const stays = to.pathname === location.pathname;
    const ago = last?.path === location.pathname ? Date.now() - last.at : Infinity;
    const takesPlace = stays
      ? ago < {_SAME_PAGE_WITHIN_MS}
      : ago < {_NEXT_PAGE_WITHIN_MS} && last.stays && last.query === to.search;
    last = {{ at: Date.now(), path: to.pathname, query: to.search, stays }};
    return takesPlace ? history.replaceState(state, unused, url) : push(state, unused, url);
  }};
}}
</script>"""


def mend() -> None:
    """Keep the page before in the history as it was; call once a run."""
    st.html(_SCRIPT, unsafe_allow_javascript=True)
