"""What the What-if page costs the server when a slider moves: `bud bench simulator_page`."""

from __future__ import annotations

import itertools
import json as json_module
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from streamlit.testing.v1 import AppTest

from core.kernel import database
from core.kernel.actor import Actor
from core.kernel.settings import ROOT, settings
from core.simulation import report, services
from core.simulation.schemas import Targets, WhatIf

_PROJECT = "prj_default"
_ASKED = 20
_PAGE_FOLLOWS_WITHIN_MS = 300


def run(json: bool = False) -> dict[str, Any]:
    """Measure on a throw-away data folder; prints the figures and gives them back."""
    folder = Path(tempfile.mkdtemp(prefix="bud-bench-"))
    environment = {
        "BUD_DATA_DIR": str(folder),
        "BUD_ADMIN_PASSWORD": "correct-horse-battery",
    }
    try:
        with mock.patch.dict("os.environ", environment):
            _forget()
            subprocess.run([sys.executable, "-m", "app.setup"], cwd=ROOT, check=True)
            figures = _measure()
    finally:
        _forget()
        shutil.rmtree(folder)
    if json:
        print(json_module.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:40} {value:>12,}")
    return figures


def _forget() -> None:
    database.dispose()
    settings.cache_clear()


def _measure() -> dict[str, Any]:
    actor = Actor.system()
    started_s = time.perf_counter()
    services.ask(actor, _PROJECT, WhatIf())
    figures: dict[str, Any] = {"first_answer_ms": _since_ms(started_s)}
    sliders = iter(range(1, 1000))
    figures["answer_p50_ms"], figures["answer_worst_ms"] = _times_ms(
        lambda: services.ask(actor, _PROJECT, WhatIf(gpus=8, tp=2, concurrency=next(sliders)))
    )
    figures["choices_of_the_inputs_p50_ms"], _ = _times_ms(
        lambda: (services.models(actor), services.systems(actor), services.instances())
    )
    figures["choose_a_model_p50_ms"], _ = _times_ms(
        lambda: services.choose_model(
            actor, _PROJECT, WhatIf(gpus=8), Targets(tpot_ms=30), precisions=("fp8",)
        )
    )
    answer = services.ask(actor, _PROJECT, WhatIf(gpus=8, tp=2))
    figures["report_p50_ms"], _ = _times_ms(lambda: report.html([answer]))
    figures["report_bytes"] = len(report.html([answer]).encode())
    figures |= _page()
    return figures


def _page() -> dict[str, Any]:
    """The whole script of the page when a slider moved; in a browser only its fragment runs."""
    page = AppTest.from_function(_signed_in, default_timeout=120).run()
    if page.exception:
        raise RuntimeError(page.exception[0].message)
    loads = itertools.cycle((64, 128, 48, 96, 256, 24, 512, 16))

    def move() -> None:
        page.select_slider(key="what-if-concurrency").set_value(next(loads)).run()

    p50_ms, worst_ms = _times_ms(move)
    return {
        "slider_to_page_p50_ms": p50_ms,
        "slider_to_page_worst_ms": worst_ms,
        "slider_to_page_must_be_under_ms": _PAGE_FOLLOWS_WITHIN_MS,
    }


def _signed_in() -> None:
    # AppTest runs the source of this function alone.
    import runpy

    import streamlit as st

    from app import session
    from app.widgets.layout import page_path
    from core.kernel.actor import Actor
    from core.projects import services as projects

    actor = Actor.system()
    project = projects.get_project(actor, "prj_default")
    st.session_state[session._KEY] = session.SessionContext(actor, None, project, "")
    runpy.run_path(str(page_path("what_if")))


def _times_ms(ask: Callable[[], object], times: int = _ASKED) -> tuple[float, float]:
    taken_ms = []
    for _ in range(times):
        started_s = time.perf_counter()
        ask()
        taken_ms.append(_since_ms(started_s))
    return round(statistics.median(taken_ms), 1), max(taken_ms)


def _since_ms(started_s: float) -> float:
    return round((time.perf_counter() - started_s) * 1000, 1)


if __name__ == "__main__":
    run()
