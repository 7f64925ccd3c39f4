"""Request bodies, errors, usage, cost and the metrics text."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.contracts.route_table import Price
from gateway import usage
from gateway.body import parse
from gateway.errors import CLASSES, GatewayError, from_upstream
from gateway.sse import EventStream
from gateway.stats import Counter, Histogram, Stats
from gateway.surface.usage import of_answer as of_surface
from gateway.usage import PromptDetails, Usage

names = st.text(max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


def test_plain_body_is_forwarded_byte_for_byte() -> None:
    raw = b'{ "messages" : [1.50, 1e3, 12345678901234567890123], "model":"m" }'
    assert parse(raw, can_stream=True).for_replica("m") == raw


@given(st.dictionaries(st.text(min_size=1, max_size=8), values, max_size=5), st.booleans())
def test_nothing_but_model_and_usage_changes(extra: dict[str, Any], renamed: bool) -> None:
    document = {**extra, "model": "m", "stream": True}
    document.pop("stream_options", None)
    body = parse(msgspec.json.encode(document), can_stream=True)
    sent = msgspec.json.decode(body.for_replica("up" if renamed else "m"))
    assert sent.pop("stream_options") == {"include_usage": True}
    assert sent == {**document, "model": "up" if renamed else "m"}


@pytest.mark.parametrize(
    ("options", "sent", "wants"),
    [
        (None, {"include_usage": True}, False),
        ({"include_usage": False}, {"include_usage": True}, False),
        ({"x": 1}, {"x": 1, "include_usage": True}, False),
        ({"include_usage": True, "x": 1}, {"include_usage": True, "x": 1}, True),
    ],
)
def test_stream_options_are_kept(options: Any, sent: Any, wants: bool) -> None:
    raw = msgspec.json.encode({"model": "m", "stream": True, "stream_options": options})
    body = parse(raw + b" \n", can_stream=True)
    assert body.wants_usage is wants
    assert msgspec.json.decode(body.for_replica("m"))["stream_options"] == sent


@given(st.binary(max_size=60) | values.map(msgspec.json.encode))
def test_any_bytes_are_a_body_or_a_clear_error(raw: bytes) -> None:
    try:
        body = parse(raw, can_stream=True)
    except GatewayError as refused:
        assert refused.status == 400
        assert msgspec.json.decode(refused.body())
    else:
        assert msgspec.json.decode(body.for_replica("another"))["model"] == "another"


def test_embeddings_never_stream() -> None:
    raw = b'{"model":"m","stream":true}'
    body = parse(raw, can_stream=False)
    assert not body.stream
    assert body.for_replica("m") == raw


@pytest.mark.parametrize(
    ("raw", "param"),
    [
        (b'{"model":1}', "model"),
        (b'{"model":"m","stream":1}', "stream"),
        (b'{"model":"m","stream_options":[]}', "stream_options"),
        (b'{"model":""}', "model"),
        (b"null", None),
        (b'{"model":"m"} x', None),
    ],
)
def test_wrong_bodies_name_the_field(raw: bytes, param: str | None) -> None:
    with pytest.raises(GatewayError) as refused:
        parse(raw, can_stream=True)
    assert refused.value.status == 400
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error":{"message":"bad","param":"top_p"}}', (400, "invalid_request", None)),
        (404, b'{"error":"no such thing"}', (400, "invalid_request", None)),
        (413, b"", (413, "invalid_request", None)),
        (400, b'{"error":{"type":"exceed_context_size_error","n_ctx":9,"n_prompt_tokens":12}}',
         (400, "context_length", "context_length_exceeded")),
        (400, b'{"error":{"message":"x","code":"context_length_exceeded"}}',
         (400, "context_length", "context_length_exceeded")),
        (501, b'{"error":{"message":"no","type":"not_supported_error"}}',
         (400, "capability", "capability_missing")),
        (403, b"", (502, "upstream_error", "replica_error")),
        (429, b"", (429, "upstream_error", "rate_limit_exceeded")),
        (500, b"<html>", (500, "upstream_error", "replica_error")),
        (502, b"\xff", (502, "upstream_error", "replica_error")),
        (503, b'{"error":{"message":"Loading model"}}', (503, "no_replica", "model_not_ready")),
        (504, b"[]", (502, "upstream_error", "replica_error")),
    ],
)  # fmt: skip
def test_errors_of_replicas(status: int, body: bytes, expected: tuple[int, str, str]) -> None:
    error = from_upstream(status, body, "m")
    assert (error.status, error.error_class, error.code) == expected
    shape = msgspec.json.decode(error.body())
    assert set(shape["error"]) == {"message", "type", "param", "code"}
    assert shape["error"]["message"]
    assert error.event() == b"data: " + error.body() + b"\n\n"


def test_every_class_is_named_in_the_contract() -> None:
    from core.contracts.request_fact import REFUSED, RequestFact

    assert RequestFact.__doc__ is not None
    assert all(name in REFUSED or name in RequestFact.__doc__ for name in CLASSES)


def test_usage_of_whole_and_partial_answers() -> None:
    whole = b'{"choices":[{"text":"\\"usage\\":{}"}],"usage":{"prompt_tokens":5,"x":{"y":1}}}'
    found = usage.of_answer(whole)
    assert found is not None
    assert found.prompt_tokens == 5
    part = usage.in_part(b'1.0]}],"usage": {"prompt_tokens":7,"d":{"c":1},"total_tokens":7}}')
    assert part is not None
    assert part.total_tokens == 7
    assert usage.of_answer(b"<html>") is None
    assert usage.in_part(b'"usage":{') is None


@pytest.mark.parametrize("count", [b"-1", b"1000000001", b"1" + b"0" * 400])
def test_counts_that_no_request_can_have_are_none(count: bytes) -> None:
    counts = b'{"prompt_tokens":1,"completion_tokens":%b}' % count
    whole = b'{"usage":%b}' % counts
    assert usage.of_answer(whole) is None
    assert usage.in_part(whole) is None
    assert of_surface(whole) is None
    stream = EventStream(keep_usage=True, model=b'"m"')
    stream.feed(b'data: {"model":"m","choices":[],"usage":%b}\n\n' % counts)
    assert stream.usage is None


def _usage(prompt: int, completion: int | None, cached: int | None = None) -> Usage:
    details = PromptDetails(cached) if cached is not None else None
    return Usage(prompt, completion, None, details)


@pytest.mark.parametrize(
    ("prices", "tokens", "usd"),
    [
        ((1.0, 2.0, None), (1_000_000, 500_000, None), 2.0),
        ((1.0, 2.0, 0.1), (1_000_000, 0, 500_000), 0.55),
        ((1.0, 2.0, None), (1_000_000, 0, 500_000), 1.0),
        ((1.0, None, None), (1_000_000, None, None), 1.0),
        ((1.0, None, None), (1, 1, None), None),
        ((None, 2.0, None), (1, 1, None), None),
        ((0.0, 0.0, 0.0), (5, 5, None), 0.0),
        ((1.0, 2.0, 0.1), (1_000_000, 0, 3_000_000), 0.1),
    ],
)
def test_cost(prices: Any, tokens: Any, usd: float | None) -> None:
    price = Price(
        input_usd_per_million_tokens=prices[0],
        output_usd_per_million_tokens=prices[1],
        cached_usd_per_million_tokens=prices[2],
    )
    found = usage.cost_usd(price, _usage(*tokens))
    assert found == (pytest.approx(usd) if usd is not None else None)


def test_cost_without_price_or_usage_is_unknown() -> None:
    assert usage.cost_usd(None, _usage(1, 1)) is None
    assert usage.cost_usd(Price(input_usd_per_million_tokens=1.0), None) is None


def test_metrics_text() -> None:
    counter = Counter("c_total", "Help.", "model")
    counter.add('a"b\\c\nd', value=2)
    assert list(counter.lines()) == ['c_total{model="a\\"b\\\\c\\nd"} 2']
    histogram = Histogram("h", "Help.", buckets=(0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 5.0):
        histogram.observe(seconds)
    assert list(histogram.lines()) == [
        'h_bucket{le="0.1"} 2',
        'h_bucket{le="1.0"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 5.650000",
        "h_count 4",
    ]
    text = Stats().text()
    assert text.count("# TYPE") == text.count("# HELP") > 8
    assert "# TYPE bud_facts_dropped_total counter" in text
