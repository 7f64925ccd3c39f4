"""What limits cost a request: `bud bench gateway_limits [--json]`.

Reserve and reconcile on the real table of a folder: CPU µs of a pair, the least of several rounds,
since other work on the machine only adds.
"""

from __future__ import annotations

import json as json_module
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

from core.contracts.route_table import ApiKey, Limit, LimitLevel
from gateway.limits.limiter import Limiter, Reservation

_PAIRS = 5000
_ROUNDS = 7
_PROJECT = "prj_bench"
_MODEL = "bench"
_SUBJECTS = {"key": "key_0", "user": "usr_0", "project": _PROJECT, "model": _MODEL}
_CASES: dict[str, tuple[tuple[str, str], ...]] = {
    "no limit": (),
    "requests a minute": (("requests", "minute"),),
    "tokens a minute": (("tokens", "minute"),),
    "requests, tokens and USD a day": (
        ("requests", "minute"), ("tokens", "minute"), ("usd", "day")
    ),
}  # fmt: skip
# As `bud bench gateway` has them for each request.
_TEN = (
    ("key", "requests", "minute"), ("key", "tokens", "minute"), ("key", "usd", "month"),
    ("user", "requests", "day"), ("user", "usd", "month"), ("project", "tokens", "minute"),
    ("project", "usd", "month"), ("project", "concurrent", ""), ("model", "requests", "minute"),
    ("model", "usd", "day"),
)  # fmt: skip


def run(json: bool = False, rounds: int = _ROUNDS) -> dict[str, Any]:
    """Measure in this process; prints the figures and gives them back."""
    figures = {
        name: {levels: _pair_us(_limits(kinds, levels), rounds) for levels in (1, 4)}
        for name, kinds in _CASES.items()
    }
    ten_us = _pair_us([_limit(*each) for each in _TEN], rounds)
    if json:
        print(json_module.dumps({**figures, "ten limits": ten_us}))
    else:
        print(f"{'CPU µs, reserve and reconcile':34}{'1 level':>9}{'4 levels':>10}")
        for name, by_levels in figures.items():
            print(f"{name:34}{by_levels[1]:9.2f}{by_levels[4]:10.2f}")
        print(f"{'ten of all kinds, on all levels':34}{ten_us:19.2f}")
        print(f"{rounds} rounds of {_PAIRS}, Python {sys.version.split()[0]}")
    return {**figures, "ten limits": ten_us}


def _pair_us(limits: list[Limit], rounds: int) -> float:
    folder = Path(tempfile.mkdtemp(prefix="bud-bench-"))
    limiter = Limiter(folder)
    try:
        limiter.use(limits)
        return round(min(_round_s(limiter) for _ in range(rounds)) / _PAIRS * 1e6, 2)
    finally:
        limiter.close()
        shutil.rmtree(folder)


def _limits(kinds: Iterable[tuple[str, str]], levels: int) -> list[Limit]:
    return [_limit(level, *kind) for level in get_args(LimitLevel)[:levels] for kind in kinds]


def _limit(level: str, metric: str, window: str) -> Limit:
    return Limit(
        project_id=_PROJECT, level=level, subject=_SUBJECTS[level],  # type: ignore[arg-type]
        metric=metric, window=window, amount=4e9,  # type: ignore[arg-type]
    )  # fmt: skip


def _round_s(limiter: Limiter) -> float:
    key = ApiKey(id="key_0", sha256="", project_id=_PROJECT, user_id="usr_0")
    began_s = time.process_time()
    for _ in range(_PAIRS):
        plan = limiter.plan_for(key, _MODEL)
        if plan is None:
            continue
        held = limiter.reserve(plan, 100, 0.001)
        assert isinstance(held, Reservation)
        limiter.reconcile(held, 80, 0.0008)
    return time.process_time() - began_s
