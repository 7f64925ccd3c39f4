"""What an onlooker reads of limits is what the limiter would admit by."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts.route_table import ApiKey, Limit
from core.kernel import clock
from gateway.limits import limiter as limiter_module
from gateway.limits.limiter import Limiter, Reservation
from gateway.limits.usage import used_now

KEY = ApiKey(id="key_a", sha256="", project_id="prj_a", user_id="usr_a")


def _limit(metric: str, window: str, amount: float = 1000) -> Limit:
    return Limit(
        project_id="prj_a", level="project", subject="prj_a", metric=metric, window=window,  # type: ignore[arg-type]
        amount=amount,
    )  # fmt: skip


LIMITS = [
    _limit("requests", "minute"),
    _limit("tokens", "hour"),
    _limit("concurrent", ""),
    _limit("usd", "day"),
    _limit("usd", "month"),
]


def test_nothing_is_known_before_a_gateway_has_counted(tmp_path: Path) -> None:
    assert used_now(tmp_path, LIMITS) == [None] * 5
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "limits").mkdir()
    (tmp_path / "limits" / "table.bin").write_bytes(b"BUL1" * 1024)
    assert used_now(tmp_path, LIMITS) == [None] * 5


def test_each_kind_is_read_while_it_is_held_settled_and_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = {"s": 10_000.0, "unix": 1_790_000_000.0}
    monkeypatch.setattr(limiter_module, "_now_s", lambda: now["s"])
    monkeypatch.setattr(clock, "monotonic_s", lambda: now["s"])
    monkeypatch.setattr(clock, "unix_s", lambda: now["unix"])
    with closing(Limiter(tmp_path / "limits", 64)) as limiter:
        limiter.use(LIMITS)
        plan = limiter.plan_for(KEY, "tiny")
        assert plan is not None
        assert used_now(tmp_path, LIMITS) == [0] * 5
        held = [limiter.reserve(plan, 100, 0.5) for _ in range(2)]
        assert used_now(tmp_path, LIMITS) == pytest.approx([2, 200, 2, 1.0, 1.0])
        for each in held:
            assert isinstance(each, Reservation)
            limiter.reconcile(each, 30, 0.25)
        assert used_now(tmp_path, LIMITS) == pytest.approx([2, 60, 0, 0.5, 0.5])
        now["s"] += 62
        assert used_now(tmp_path, LIMITS) == pytest.approx([0, 60, 0, 0.5, 0.5])
        now["s"], now["unix"] = now["s"] + 86_400, now["unix"] + 86_400
        assert used_now(tmp_path, LIMITS) == pytest.approx([0, 0, 0, 0, 0.5])
        now["unix"] += 31 * 86_400
        assert used_now(tmp_path, LIMITS) == pytest.approx([0, 0, 0, 0, 0])


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(st.floats(0, 45), max_size=12))
def test_what_is_read_leaves_room_for_just_the_rest(
    tmp_path_factory: pytest.TempPathFactory, steps: list[float]
) -> None:
    folder, now_s = tmp_path_factory.mktemp("host"), 5_000.0
    limits = [_limit("requests", "minute", 10)]
    with pytest.MonkeyPatch.context() as patch, closing(Limiter(folder / "limits", 16)) as limiter:
        patch.setattr(limiter_module, "_now_s", lambda: now_s)
        patch.setattr(clock, "monotonic_s", lambda: now_s)
        limiter.use(limits)
        plan = limiter.plan_for(KEY, "tiny")
        assert plan is not None
        for step_s in steps:
            now_s += step_s
            limiter.reserve(plan)
        used = used_now(folder, limits)[0]
        assert used is not None
        admitted = sum(isinstance(limiter.reserve(plan), Reservation) for _ in range(11))
        assert admitted == 10 - used
