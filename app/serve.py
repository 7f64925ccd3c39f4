"""Runs the dashboard: `python -m app.serve`, as the supervisor does."""

from __future__ import annotations

import ctypes
import inspect
import logging
import os
import signal
import sys
import threading
import time

import uvicorn

from core.kernel.settings import settings

_STREAMLIT_OPTIONS = {
    "STREAMLIT_SERVER_FILE_WATCHER_TYPE": "none",
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    "STREAMLIT_SERVER_HEADLESS": "true",
    "STREAMLIT_CLIENT_TOOLBAR_MODE": "minimal",
    "STREAMLIT_CLIENT_SHOW_SIDEBAR_NAVIGATION": "true",
}
_PR_SET_PDEATHSIG = 1
_GRACE_S = 3


def main() -> None:
    """Serve until SIGTERM, or until the supervisor is gone."""
    os.environ.update(_STREAMLIT_OPTIONS)
    _end_with_parent()
    # After the options are set, which Streamlit reads when it is imported.
    from app.main import app

    # Pages wait for it otherwise. Not beside the import above: plotly, which that one loads,
    # looks into a half-imported pandas and fails.
    threading.Thread(target=_warm_up, daemon=True).start()
    # Nobody reads a line for each file and health check. A filter, because Streamlit gives the
    # loggers of uvicorn its own handlers and levels when it starts.
    logging.getLogger("uvicorn.access").addFilter(lambda _record: False)
    uvicorn.run(
        app,
        host=settings().host,
        port=settings().app_port,
        log_level="warning",
        timeout_graceful_shutdown=_GRACE_S,
        ws_ping_interval=30,
    )


def _warm_up() -> None:
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    # Streamlit asks once for the stack: of every module the file is then looked for.
    inspect.stack()


def _end_with_parent() -> None:
    """End this process when its supervisor does, however that ends."""
    # Named by the supervisor, so that one that is gone already is noticed too.
    parent = int(os.environ.get("BUD_SUPERVISOR_PID") or os.getppid())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    # A page that hangs must not keep the port.
    time.sleep(_GRACE_S + 2)
    os._exit(1)


if __name__ == "__main__":
    main()
