"""The route table in the gateway: looked up, swapped whole, kept when the file is damaged."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest

from core.contracts import route_table
from core.contracts.route_table import Project, RouteTable
from core.kernel import clock
from gateway.table import TableHolder
from tests.doubles.gateway_harness import CHAT, KEY, api_key, publish, route

URL = "http://127.0.0.1:9"
HASH = hashlib.sha256(KEY.encode()).hexdigest()


def holder(data_dir: Path) -> TableHolder:
    return TableHolder(data_dir / "routes" / "table.json", data_dir / "keys")


async def test_no_file_is_an_empty_table(tmp_path: Path) -> None:
    held = holder(tmp_path)
    await held.refresh()
    assert held.current.version == 0
    assert held.current.key(HASH) is None


async def test_keys_expire_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expires = clock.unix_s() + 100
    publish(tmp_path, [], [api_key(expires_unix_s=expires)])
    held = holder(tmp_path)
    await held.refresh()
    assert held.current.key(HASH) is not None
    assert held.current.key(HASH[1:]) is None
    monkeypatch.setattr(clock, "unix_s", lambda: expires + 0.1)
    assert held.current.key(HASH) is None


async def test_replicas_keep_their_state_over_a_swap(tmp_path: Path) -> None:
    held = holder(tmp_path)
    publish(tmp_path, [route(URL, "http://127.0.0.1:10")])
    await held.refresh()
    first, second = held.current.routes["prj_a", CHAT].backends
    first.in_flight = 3
    publish(tmp_path, [route(URL, "http://127.0.0.1:11")], version=2)
    await held.refresh()
    again, moved = held.current.routes["prj_a", CHAT].backends
    assert again is first
    assert again.in_flight == 3
    assert moved is not second
    assert moved.replica.base_url.endswith(":11")


async def test_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    held = holder(tmp_path)
    publish(tmp_path, [route(URL)])
    await held.refresh()
    table = held.current
    await held.refresh()
    assert held.current is table


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version":"x"}', b"\xff"])
async def test_damaged_file_keeps_the_last_good_table(tmp_path: Path, content: bytes) -> None:
    held = holder(tmp_path)
    publish(tmp_path, [route(URL)])
    await held.refresh()
    (tmp_path / "routes" / "table.json").write_bytes(content)
    await held.refresh()
    assert held.current.version == 1
    publish(tmp_path, [], version=2)
    await held.refresh()
    assert held.current.version == 2


async def test_credential_that_does_not_open_leaves_its_replica_out(tmp_path: Path) -> None:
    good = route(URL, "http://127.0.0.1:10")
    broken = msgspec.structs.replace(good.replicas[0], credential="not sealed")
    publish(tmp_path, [msgspec.structs.replace(good, replicas=[broken, good.replicas[1]])])
    held = holder(tmp_path)
    await held.refresh()
    target = held.current.routes["prj_a", CHAT]
    assert [backend.replica.id for backend in target.backends] == [good.replicas[1].id]
    assert target.problem == ""


async def test_routes_are_seen_by_their_project_only(tmp_path: Path) -> None:
    publish(tmp_path, [route(URL), route(URL, project_id="prj_b", model="secret")])
    held = holder(tmp_path)
    await held.refresh()
    assert [each.model for each in held.current.models(api_key())] == [CHAT]
    assert [each.model for each in held.current.models(api_key(project_id="prj_b"))] == ["secret"]
    assert held.current.models(api_key(models=("another",))) == []


@pytest.mark.parametrize(
    ("state", "expected"), [("restarting", True), ("degraded", True), ("stopped", False)]
)
async def test_only_some_states_are_worth_waiting_for(
    tmp_path: Path, state: str, expected: bool
) -> None:
    publish(tmp_path, [route(state=state)])
    held = holder(tmp_path)
    await held.refresh()
    assert held.current.routes["prj_a", CHAT].may_come_back is expected


async def test_no_project_takes_anothers_place_by_its_name(tmp_path: Path) -> None:
    publish(tmp_path, [])
    path = tmp_path / "routes" / "table.json"
    first = Project(id="prj_a", name="Alpha")
    posing = Project(id="prj_b", name="prj_a")
    path.write_bytes(
        route_table.encode(RouteTable(version=1, published_unix_s=0, projects=[first, posing]))
    )
    held = holder(tmp_path)
    await held.refresh()
    assert held.current.projects == {"prj_a": first, "Alpha": first, "prj_b": posing}
