"""The dashboard as an ASGI app: Streamlit's pages, Bud's own log-in routes, background work.

`uvicorn app.main:app`, `python -m app.serve` and `streamlit run app/main.py` all start it.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import streamlit as st  # noqa: E402
from starlette.concurrency import run_in_threadpool  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

from app import auth, background, guard, internal, late_polls, setup_mark  # noqa: E402


@asynccontextmanager
async def lifespan(_app: st.App) -> AsyncIterator[None]:
    """Run jobs, deployments and ingestion while the app is up."""
    await run_in_threadpool(setup_mark.wait)
    await run_in_threadpool(background.start)
    yield
    await run_in_threadpool(background.stop)


late_polls.leave_out()
app = st.App(
    ROOT / "app" / "ui.py",
    lifespan=lifespan,
    routes=[*auth.routes, *internal.routes],
    middleware=[Middleware(guard.RequireSession)],
)
