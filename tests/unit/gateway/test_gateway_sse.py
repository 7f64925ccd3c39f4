"""Event streams: what is forwarded, however the bytes are cut."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import sse
from gateway.sse import EventStream, EventTooLarge

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 1}}

texts = st.text(max_size=30) | st.sampled_from(
    ['","usage":null', "data: [DONE]\n\n", '"error"', '{"usage": 1}', "\\", "\r\n\r\n"]
)


def event(document: object) -> bytes:
    return b"data: " + msgspec.json.encode(document) + b"\n\n"


def token(text: str, **fields: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return event({"id": "c", "model": "up", "choices": [choice], **fields})


def stream_of(tokens: list[str], **fields: object) -> bytes:
    usage = event({"id": "c", "model": "up", "choices": [], "usage": USAGE})
    parts = [token(text, **fields) for text in tokens]
    return b"".join([*parts, usage, b"data: [DONE]\n\n"])


def fed(stream: EventStream, content: bytes, cuts: list[int]) -> bytes:
    edges = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    pieces = [content[a:b] for a, b in itertools.pairwise(edges)]
    return b"".join(stream.feed(piece) for piece in pieces)


@given(st.lists(texts, max_size=6), st.lists(st.integers(0, 10_000), max_size=12), st.booleans())
def test_any_cut_gives_the_same_stream(tokens: list[str], cuts: list[int], crlf: bool) -> None:
    content = stream_of(tokens)
    expected = b"".join(token(text) for text in tokens) + b"data: [DONE]\n\n"
    if crlf:
        content = content.replace(b"\n", b"\r\n")
    stream = EventStream(keep_usage=False, model=b'"up"')
    assert fed(stream, content, cuts) == expected
    assert stream.done
    assert stream.is_whole
    assert stream.error is None
    assert stream.usage is not None
    assert (stream.usage.prompt_tokens, stream.usage.cached_tokens) == (3, 1)


@given(st.lists(texts, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_usage_that_was_asked_for_stays_untouched(tokens: list[str], cuts: list[int]) -> None:
    content = stream_of(tokens, usage=None)
    stream = EventStream(keep_usage=True, model=b'"up"')
    assert fed(stream, content, cuts) == content
    assert stream.usage is not None


@given(st.lists(texts, max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_null_usage_and_model_name_are_put_right(tokens: list[str], cuts: list[int]) -> None:
    stream = EventStream(keep_usage=False, model=b'"the name"')
    out = fed(stream, stream_of(tokens, usage=None), cuts)
    expected = b"".join(token(text) for text in tokens).replace(
        b'"model":"up"', b'"model":"the name"'
    )
    assert out == expected + b"data: [DONE]\n\n"


@given(st.lists(texts, min_size=1, max_size=4), st.integers(1, 400))
def test_only_whole_events_are_forwarded(tokens: list[str], cut: int) -> None:
    content = stream_of(tokens)
    stream = EventStream(keep_usage=True, model=b'"up"')
    out = stream.feed(content[:cut])
    assert out == b"" or out.endswith(b"\n\n")
    assert content.startswith(out)


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_garbage_is_never_an_exception(content: bytes, cuts: list[int]) -> None:
    fed(EventStream(keep_usage=False, model=b'"up"'), content, cuts)


def test_usage_on_the_last_choice_is_taken_out() -> None:
    # llama.cpp's /v1/completions gives usage with its last choice, asked or not.
    last = {"choices": [{"text": "", "finish_reason": "stop"}], "usage": USAGE}
    stream = EventStream(keep_usage=False, model=b'"up"')
    assert stream.feed(event(last)) == event({"choices": last["choices"]})
    assert stream.usage is not None


def test_error_event_is_seen_and_forwarded() -> None:
    stream = EventStream(keep_usage=False, model=b'"up"')
    failed = event({"error": {"message": "no"}})
    assert stream.feed(failed) == failed
    assert stream.error is not None
    assert stream.is_whole
    fine = EventStream(keep_usage=False, model=b'"up"')
    assert fine.feed(token('say "error"', error=None))
    assert fine.error is None


def test_comments_are_forwarded_but_are_no_data() -> None:
    stream = EventStream(keep_usage=False, model=b'"up"')
    assert stream.feed(b": ping\n\n") == b": ping\n\n"
    assert not stream.has_data
    stream.feed(token("a"))
    assert stream.has_data


def test_event_without_end_is_refused() -> None:
    stream = EventStream(keep_usage=False, model=b'"up"')
    for _ in range(8):
        assert stream.feed(b"x" * (1 << 20)) == b""
    with pytest.raises(EventTooLarge):
        stream.feed(b"x")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"model":"up"}', b'{"model":"up"}'),
        (b'{"model": "/a \\" b/c.gguf"}', b'{"model":"up"}'),
        (b'{"content":"\\"model\\":\\"x\\""}', b'{"content":"\\"model\\":\\"x\\""}'),
        (b"{}", b"{}"),
    ],
)
def test_the_caller_sees_the_name_it_knows(content: bytes, expected: bytes) -> None:
    assert sse.named(content, b'"up"') == expected
