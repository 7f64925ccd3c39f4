"""Input and answers of batches, and how many lines are asked at once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from core.batches import lines, pacing
from core.batches.adapters import gateway
from core.batches.lines import Answers
from core.batches.pacing import Lane
from core.contracts.batch import ERRORS, RESULTS
from core.kernel import clock
from core.kernel.crypto import Secret
from core.kernel.errors import Unavailable
from core.routing.live import Capacity


def test_answers_are_read_back_without_a_torn_line(tmp_path: Path) -> None:
    answers = Answers(tmp_path)
    counts = {"prompt_tokens": 3, "completion_tokens": 2}
    usage = {"usage": {**counts, "prompt_tokens_details": {"cached_tokens": 1}}}
    answers.add("a", "req_a", status=200, body=json.dumps(usage, indent=1).encode())
    answers.add("b", "req_b", status=502, body=b"<html>\n")
    answers.add("c", "req_c", error={"code": "batch_expired", "message": "m"})
    answers.close()
    with (tmp_path / RESULTS).open("ab") as file:
        file.write(b'{"id": "' + b"x" * 200_000)
    again = Answers(tmp_path)
    again.close()
    assert again.done == {"a", "b", "c"}
    assert (again.completed, again.failed) == (1, 2)
    assert (again.input_tokens, again.output_tokens, again.cached_tokens) == (3, 2, 1)
    (good,) = [json.loads(line) for line in (tmp_path / RESULTS).read_text().splitlines()]
    assert good["response"]["body"] == usage
    bad, expired = [json.loads(line) for line in (tmp_path / ERRORS).read_text().splitlines()]
    assert bad["response"] == {"status_code": 502, "request_id": "req_b", "body": "<html>\n"}
    assert (expired["response"], expired["error"]["code"]) == (None, "batch_expired")


def test_an_input_is_checked_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "in"
    good = {"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m"}}
    path.write_text(json.dumps(good) + "\n\n" + json.dumps(good | {"custom_id": "2"}))
    assert lines.check(path, "/v1/embeddings") == (2, {"m"}, [])
    assert [line.custom_id for line in lines.read(path)] == ["1", "2"]
    path.write_text(json.dumps(good | {"body": {}}) + "\n" + json.dumps(good | {"method": "GET"}))
    _, _, errors = lines.check(path, "/v1/embeddings")
    assert [error.code for error in errors] == ["missing_model", "duplicate_custom_id"]
    _, _, errors = lines.check(path, "/v1/completions")
    assert errors[0].code == "mismatched_url"
    many = [good | {"custom_id": str(n), "body": {"model": f"m{n}"}} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, many)))
    assert [each.code for each in lines.check(path, "/v1/embeddings")[2]] == ["too_many_models"]
    assert [each.code for each in lines.check(path, "/v1/embeddings", 50)[2]] == ["line_too_long"]
    path.write_text("")
    assert [error.code for error in lines.check(path, "/v1/embeddings")[2]] == ["empty_file"]


async def test_what_always_breaks_off_is_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may be the line that does it, and each try may cost."""
    monkeypatch.setattr(gateway, "_FIRST_WAIT_S", 0.001)
    asked = 0

    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(1)
        writer.close()

    async with await asyncio.start_server(break_off, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asking = gateway.Gateway(f"http://127.0.0.1:{port}", Secret("s"))
        with pytest.raises(Unavailable, match="in 5 tries"):
            await asking.ask("/v1/embeddings", b"{}", "req_a", clock.unix_s() + 60)
        await asking.close()
    assert asked == 5


@pytest.mark.parametrize("passes", [True, False])
async def test_a_limit_is_waited_for_only_where_waiting_helps(
    monkeypatch: pytest.MonkeyPatch, *, passes: bool
) -> None:
    monkeypatch.setattr(gateway, "_FIRST_WAIT_S", 0.001)
    body = b'{"error": {"code": "rate_limit_exceeded"}}'
    after = b"Retry-After: 0\r\n" if passes else b""
    asked = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read(65536)
        status = b"200 OK" if asked > 2 else b"429 Too Many Requests"
        writer.write(b"HTTP/1.1 %b\r\n%bConnection: close\r\n\r\n%b" % (status, after, body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asking = gateway.Gateway(f"http://127.0.0.1:{port}", Secret("s"))
        answer = await asking.ask("/v1/embeddings", b"{}", "req_a", clock.unix_s() + 60)
        await asking.close()
    assert (answer.status, asked) == ((200, 3) if passes else (429, 1))


@pytest.mark.parametrize(
    ("slots", "hosted", "live", "lines_at_once"),
    [(4, 0, 0, 3), (4, 0, 2, 1), (4, 0, 3, 0), (4, 0, 9, 0), (1, 0, 0, 1), (1, 0, 1, 0),
     (0, 2, 0, 8), (0, 0, 0, 1), (64, 0, 0, 16), (2, 1, 5, 4)],
)  # fmt: skip
def test_one_slot_is_left_to_live_requests(
    slots: int, hosted: int, live: int, lines_at_once: int
) -> None:
    assert pacing.allowed(Capacity(slots, live, hosted), live) == lines_at_once


def test_lines_are_not_taken_for_live_requests() -> None:
    now_s, seen = 0.0, Capacity(4, 0, 0)
    lane = Lane(lambda: seen, lambda: now_s)
    assert [lane.take("a") for _ in range(4)] == [True, True, True, False]
    now_s, seen = 1.0, Capacity(4, 3, 0)  # the gateway tells of the lines themselves
    lane.give_back("a")
    assert lane.take("a")
    now_s, seen = 2.0, Capacity(4, 5, 0)  # two are somebody else's
    lane.give_back("a")
    lane.give_back("a")
    assert not lane.take("a")
    lane.give_back("a")
    assert lane.take("a")
    assert not lane.take("a")


def test_batches_share_what_there_is() -> None:
    now_s = 0.0
    lane = Lane(lambda: Capacity(5, 0, 0), lambda: now_s)
    assert [lane.take("a") for _ in range(5)] == [True] * 4 + [False]
    assert not lane.take("b")
    lane.give_back("a")
    assert not lane.take("a")
    assert lane.take("b")
    lane.give_back("a")
    assert not lane.take("a")
    assert lane.take("b")
    lane.give_back("b")
    lane.give_back("b")
    now_s = 2.0  # it wants no more
    assert [lane.take("a") for _ in range(3)] == [True, True, False]
