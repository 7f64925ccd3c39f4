"""How each policy shares requests among replicas."""

from __future__ import annotations

from collections import Counter

import pytest

from core.contracts.route_table import Replica
from core.kernel import clock
from gateway import policies
from gateway.balancer import Backend


def backend(name: str, *, slots: int = 8) -> Backend:
    made = Backend(Replica(id=name, base_url="http://127.0.0.1:1", slots=slots), "")
    made._warm_at_s = 0.0
    return made


def shares(backends: list[Backend], pick: policies.Pick, requests: int = 2000) -> Counter[str]:
    return Counter(pick(backends, n).replica.id for n in range(requests))


def test_least_loaded_of_all() -> None:
    backends = [backend(str(n)) for n in range(6)]
    for each in backends[:5]:
        each.in_flight = 1
    assert shares(backends, policies.least_loaded, 20) == {"5": 20}


def test_fastest_is_explored_now_and_then_and_left_when_full() -> None:
    quick, slow = backend("quick"), backend("slow")
    quick.succeeded(20.0)
    slow.succeeded(200.0)
    found = shares([quick, slow], policies.fastest)
    assert 0 < found["slow"] < 200  # a twentieth, half of it to the quick one
    quick.in_flight = 8
    assert shares([quick, slow], policies.fastest, 20) == {"slow": 20}


def test_a_prompt_stays_with_its_replica_and_moves_only_with_it() -> None:
    backends = [backend(str(n)) for n in range(5)]
    before = [policies.prefix(backends, n).replica.id for n in range(1000)]
    assert all(150 < count < 250 for count in Counter(before).values())
    without = [policies.prefix(backends[:4], n).replica.id for n in range(1000)]
    moved = [old for old, new in zip(before, without, strict=True) if old != new]
    assert set(moved) == {"4"}


def test_one_hot_prompt_overloads_no_replica() -> None:
    backends = [backend(str(n), slots=4) for n in range(4)]
    for _ in range(400):
        policies.prefix(backends, 7).in_flight += 1
    loads = [each.in_flight for each in backends]
    assert sum(loads) == 400
    assert max(loads) <= 1.25 * 101


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        (b'{"model":"m","messages":[{"role":"a"}]}', b'{"messages":[{"role":"a"}]}', True),
        (b'{"messages":[{"a":1}],"seed":1}', b'{"messages":[{"a":2}],"seed":1}', False),
        (b'{"prompt":"' + b"x" * 2000 + b'y"}', b'{"prompt":"' + b"x" * 2000 + b'z"}', True),
    ],
)
def test_prompts_that_begin_alike_belong_together(one: bytes, other: bytes, alike: bool) -> None:
    assert (policies.affinity("", one[:-1]) == policies.affinity("", other[:-1])) == alike
    assert policies.affinity("s", one) == policies.affinity("s", other)


def test_at_random_takes_any_and_a_new_one_less() -> None:
    warm, new = backend("warm"), Backend(Replica(id="new", base_url="http://x"), "")
    found = shares([warm, backend("other"), new], policies.at_random)
    assert abs(found["warm"] - found["other"]) < 200  # sigma 31
    assert 40 < found["new"] < 180  # a tenth of a share, 95 expected


def test_a_new_replica_is_given_its_share_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)
    warm, new = backend("warm"), Backend(Replica(id="new", base_url="http://x", slots=8), "")
    for _ in range(100):
        policies.least_loaded([warm, new]).in_flight += 1
    assert new.in_flight < 15
    now_s = 111.0
    for _ in range(100):
        policies.least_loaded([warm, new]).in_flight += 1
    assert abs(new.in_flight - warm.in_flight) <= 1


def test_one_that_fails_half_of_its_requests_is_ejected(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(clock, "monotonic_s", lambda: now_s)
    one = backend("one")
    waits = []
    for _ in range(30):
        now_s += 10
        one.failed(now_s, away=False)
        waits.append(one.wait_s)
        now_s += 10
        one.failed(now_s, away=False)
        waits.append(one.wait_s)
        one.succeeded(5.0)
    assert max(waits[:4]) < 1
    assert waits[-1] == pytest.approx(5.0)
