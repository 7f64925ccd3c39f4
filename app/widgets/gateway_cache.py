"""The response cache of a project: what it did, what it keeps, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from app.widgets import Kpi, confirm_by_name, errors_shown, escape, formats, kpi_row
from core.kernel.actor import Actor
from core.metrics import services as metrics
from core.metrics.schemas import CacheNumbers, Window
from core.response_cache import services as cache
from core.response_cache.schemas import ResponseCacheView

_DAY = "24h"
_WHICH = {
    False: "Those that ask for the same answer each time: temperature 0, a seed, embeddings",
    True: "All: callers who want another answer each time get the same one, too",
}


def cache_view(actor: Actor, project_id: str, project_name: str) -> None:
    """What the cache did, and for admins of the project its settings."""
    view = cache.get_cache(actor, project_id)
    seen = metrics.cache_numbers(actor, project_id, Window.preset(_DAY))
    _state(view)
    _numbers(view, seen)
    if not actor.may("cache:update", project_id):
        st.caption("An admin of the project can turn it on and off, and purge it.")
        return
    _form(actor, project_id, view)
    if view is not None and view.enabled:
        _purge(actor, project_id, project_name)


def _state(view: ResponseCacheView | None) -> None:
    if view is None or not view.enabled:
        st.info(
            "No answer is kept: every request goes to a model. When answers are kept, the same "
            "request gets the same answer at once, and takes no tokens and no budget.",
            icon=":material/cached:",
        )
        return
    which = "all requests" if view.all_requests else "requests with temperature 0 or a seed"
    ttl = formats.duration(view.ttl_s).replace(" 0 min", "").replace(" 0 s", "").replace(" 0 h", "")
    st.success(
        f"Answers to {which} are kept, and given again for {ttl}, to callers of this project only.",
        icon=":material/cached:",
    )
    st.caption(f"Set {formats.when(view.set_at)} by {escape(view.set_by_name)}.")


def _numbers(view: ResponseCacheView | None, seen: CacheNumbers) -> None:
    kept = used = None
    if view is not None and view.answers is not None:
        kept, used = formats.count(view.answers), formats.size(view.used_bytes)
    st.caption("What it did in the last 24 hours, and what it keeps now.")
    kpi_row(
        [
            Kpi(
                "Hit rate",
                formats.percent(seen.hit_rate),
                "Hits among the requests that were looked up.",
                note=f"{seen.hits:,} of {seen.hits + seen.misses:,}",
            ),
            Kpi(
                "Bypassed",
                formats.count(seen.bypassed),
                "Not looked up: not one that is kept, the caller did not want it, or its route is "
                "left out.",
            ),
            Kpi(
                "Tokens saved",
                formats.short_count(seen.saved_tokens),
                "What the kept answers had taken when they were made.",
            ),
            Kpi(
                "Saved",
                formats.usd(seen.saved_usd),
                "By token price. “—” means that no price is set: see Settings, Prices.",
            ),
            Kpi(
                "Kept now",
                kept,
                "On this host. Where hosts share a Valkey, answers are kept there.",
                note=used or "",
            ),
        ],
        key="cache",
    )


def _form(actor: Actor, project_id: str, view: ResponseCacheView | None) -> None:
    with st.form("cache"):
        on = st.toggle("Keep answers", value=view is not None and view.enabled, key="cache-on")
        all_requests = st.radio(
            "Of which requests", list(_WHICH), index=int(view.all_requests) if view else 0,
            format_func=_WHICH.__getitem__, key="cache-which",
        )  # fmt: skip
        left, right = st.columns(2)
        # Without bounds: a browser drops what is out of them without a word.
        ttl_s = left.number_input(
            "Given again for (s)", value=view.ttl_s if view else cache.DEFAULT_TTL_S,
            step=60, key="cache-ttl", help="3,600 s are an hour, 86,400 s a day.",
        )  # fmt: skip
        max_mb = right.number_input(
            "What they may take (MB)", value=view.max_mb if view else cache.DEFAULT_MB,
            key="cache-mb", help="On each gateway host. Those used longest ago go first.",
        )  # fmt: skip
        saved = st.form_submit_button("Save", type="primary")
    if not saved:
        return
    with errors_shown():
        cache.check_sizes(ttl_s, max_mb)
        if on:
            cache.turn_on(
                actor, project_id, ttl_s=ttl_s, max_mb=max_mb, all_requests=bool(all_requests)
            )
        elif view is not None:
            cache.turn_off(actor, project_id)
        st.toast("Saved. The gateway follows within a second.")
        st.rerun()


def _purge(actor: Actor, project_id: str, project_name: str) -> None:
    purge: Callable[[], object] = lambda: cache.purge(actor, project_id)  # noqa: E731
    if st.button("Purge …", icon=":material/delete_sweep:", key="cache-purge"):
        confirm_by_name(
            project_name,
            "All kept answers are deleted; the next requests go to their models, and cost what "
            "they cost.",
            purge,
            verb="Purge",
        )
