"""What is passed on in its frame is what would have been forwarded without that."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from gateway.lane import Lane
from gateway.outbox import Outbox
from gateway.sse import EventStream
from gateway.upstream import Connection, Pool

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
MODEL = b'"tiny"'
TEXTS = st.sampled_from(
    [
        "a",
        " tok",
        "",
        "\n\n",
        'a "quote"',
        "back\\",
        "é",
        "[DONE]",
        '"usage"',
        '"error"',
        "x" * 2000,
    ]
) | st.text(max_size=20)


def _event(delta: dict[str, Any], model: str = "tiny", **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    document = {"id": "c1", "model": model, "choices": [choice], **more}
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


EVENTS = st.one_of(
    *[st.builds(lambda text: _event({"content": text}), TEXTS)] * 4,
    st.builds(lambda text: _event({"content": text}, usage=None), TEXTS),
    st.builds(lambda text: _event({"content": text}, model="other"), TEXTS),
    st.builds(lambda text: _event({"content": text, "more": {"content": text}}), TEXTS),
    st.builds(lambda text: _event({"tool_calls": [{"arguments": text}]}), TEXTS),
    st.sampled_from([
        _event({}, usage={"prompt_tokens": 1, "completion_tokens": 2}),
        b'data: {"error":{"message":"no"}}\n\n',
        b": a sign of life\n\n",
        b"data: [DONE]\n\n",
        _event({"content": "a"}).replace(b"\n", b"\r\n"),
        _event({"content": "TEXT"}).replace(b"TEXT", b"\n\ndata: [DONE]\n\n"),
        _event({"content": "TEXT"}).replace(b"TEXT", b"\r\n"),
        _event({"content": "TEXT"}).replace(b"TEXT", b"\\"),
        _event({"content": "TEXT"}).replace(b'TEXT"', b""),
        b"no event",
    ]),
)  # fmt: skip
CHUNKS = st.lists(st.tuples(EVENTS, st.sampled_from(["%x", "%X"]), st.integers(1, 3)), max_size=25)


def _reads(chunks: list[tuple[bytes, str, int]], cuts: list[int]) -> list[bytes]:
    """Several chunks in a read now and then, or one that is cut."""
    reads = [b""]
    for number, (event, digits, events) in enumerate(chunks):
        content = event * events
        reads[-1] += b"%b\r\n%b\r\n" % ((digits % len(content)).encode(), content)
        cut = cuts[number % len(cuts)] if cuts else 0
        if cut < 0:
            continue
        whole = reads.pop()
        reads += [whole[:cut], whole[cut:], b""] if cut else [whole, b""]
    return [read for read in [*reads, b"0\r\n\r\n"] if read]


def _forwarded(reads: list[bytes], *, with_lane: bool, keep_usage: bool) -> tuple[Any, ...]:
    loop = cast(Any, SimpleNamespace(time=lambda: 0.0))
    connection = Connection(loop, cast(Pool, None), cast(Outbox, None))
    connection._in_use = True
    events = EventStream(keep_usage=keep_usage, model=MODEL)
    out: list[bytes] = []
    passed = 0

    def write_chunk(chunk: bytes) -> None:
        nonlocal passed
        passed += 1
        size, _, rest = chunk.partition(b"\r\n")
        assert len(rest) == int(size, 16) + 2
        out.append(rest[:-2])

    lane = Lane(events, write_chunk) if with_lane else None
    connection.push(lambda read: out.append(events.feed(read)), lane, 1.0, 1.0)
    for read in [HEAD, *reads]:
        connection.data_received(read)
    return b"".join(out), events.usage, events.done, events.error, connection.error, passed


@given(CHUNKS, st.lists(st.sampled_from([0, 0, 0, -1, 1, 7, 40]), max_size=5), st.booleans())
def test_the_caller_gets_the_same_bytes(
    chunks: list[tuple[bytes, str, int]], cuts: list[int], keep_usage: bool
) -> None:
    reads = _reads(chunks, cuts)
    fed = _forwarded(reads, with_lane=False, keep_usage=keep_usage)
    assert _forwarded(reads, with_lane=True, keep_usage=keep_usage)[:-1] == fed[:-1]


def test_plain_events_are_passed_on_whatever_their_length() -> None:
    texts = ["a", "bc", "", "x" * 60, "y" * 300, '"', "z", "\\", "w"]
    reads = _reads([(_event({"content": text}), "%x", 1) for text in texts], [])
    # The first one is fed: until then it is not known that the stream has data.
    assert _forwarded(reads, with_lane=True, keep_usage=False)[-1] == len(texts) - 1
