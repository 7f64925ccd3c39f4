"""Guardrails on streams and texts: whatever the cuts, what is masked never leaves."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contracts.guardrails import Check, Guardrail, JsonSchema, Pii, Secrets
from core.detection import personal
from core.detection.examination import Passage, examiner
from core.detection.masking import as_plain_json, masked, masked_json
from gateway.errors import GatewayError
from gateway.guardrails import checking, documents, streams, texts
from gateway.guardrails.answers import read_back
from gateway.guardrails.checking import Results
from gateway.guardrails.rules import Rail, RailMaker
from gateway.guardrails.streams import StreamGuard

SECRETS = ("ada@example.org", "4111 1111 1111 1111", "203.0.113.9", "+49 170 1234567")
WORDS = ("Hello", " ", "\n", "the card", "1 2 3", "é日本", ".", "x@", "\\", '"', "4111")
said = st.lists(st.sampled_from(SECRETS + WORDS), max_size=12).map(" ".join)


def rail(check: Check, **fields: Any) -> Rail:
    known = {"id": "grl_1", "project_id": "p", "name": "rule", "action": "mask",
             "budget_ms": 60_000.0}  # fmt: skip
    return Rail(Guardrail(check=check, **known | fields), examiner(check))


PII = rail(Pii())


def event(delta: dict[str, Any], finish: str | None = None, **choice: Any) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish} | choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def pieces(text: str, cuts: list[int]) -> list[str]:
    ends = [*sorted(cut for cut in cuts if cut < len(text)), len(text)]
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


async def passed(
    guard: StreamGuard, events: list[bytes], end: bytes = b"data: [DONE]\n\n"
) -> bytes:
    out = [await guard.pass_on(each, is_end=False) for each in events]
    return b"".join([*out, await guard.pass_on(end, is_end=True)])


def shown(out: bytes, field: str = "content") -> str:
    found = ""
    for line in out.decode().split("\n\n"):
        if line.startswith("data: {"):
            for choice in json.loads(line[6:])["choices"]:
                found += choice["delta"].get(field) or ""
    return found


@settings(max_examples=120)
@given(text=said, cuts=st.lists(st.integers(0, 150), max_size=40))
def test_what_is_masked_never_leaves_however_it_is_split(text: str, cuts: list[int]) -> None:
    events = [event({"content": piece}, logprobs={"content": [{"token": piece}]})
              for piece in pieces(text, cuts)]  # fmt: skip
    guard = StreamGuard([PII], Results())
    out = asyncio.run(passed(guard, [*events, event({}, "stop")]))
    assert shown(out) == masked(text, personal.finder().find(text))
    for secret in SECRETS:
        assert secret not in json.dumps(shown(out))
    # Nothing of it in what says the same token by token either.
    tokens = "".join(
        token["token"] for line in out.decode().split("\n\n") if line.startswith("data: {")
        for choice in json.loads(line[6:])["choices"]
        for token in (choice.get("logprobs") or {"content": []})["content"]
    )  # fmt: skip
    assert personal.finder().find(tokens) == []
    if not personal.finder().find(text):
        assert out == b"".join([*events, event({}, "stop"), b"data: [DONE]\n\n"])


values = st.recursive(
    st.one_of(st.sampled_from(SECRETS), st.text(max_size=8), st.integers(), st.booleans(),
              st.sampled_from([4111111111111111, "\nada@example.org", "\\ada@example.org"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3),
                            st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip
objects = st.dictionaries(st.sampled_from(["a", "mail", "ada@example.org"]), values, min_size=1)


@settings(max_examples=150)
@given(objects)
def test_masks_keep_json_what_it_is(document: dict[str, Any]) -> None:
    plain = as_plain_json(json.dumps(document))
    assert plain is not None
    found = personal.finder().find(plain)
    read = json.loads(masked_json(plain, found))
    assert bool(found) == (read != document)
    assert not personal.finder().find(json.dumps(read, ensure_ascii=False))


@settings(max_examples=60)
@given(objects, st.lists(st.integers(0, 200), max_size=30))
def test_json_that_is_streamed_stays_json(document: dict[str, Any], cuts: list[int]) -> None:
    text = msgspec.json.encode(document).decode()
    events = [event({"content": piece}) for piece in pieces(text, cuts)]
    out = asyncio.run(passed(StreamGuard([PII], Results()), [*events, event({}, "stop")]))
    json.loads(shown(out))


def test_a_call_is_looked_at_whole_and_without_its_escapes() -> None:
    arguments = json.dumps({"mail": "X"}).replace("X", r"\u0061da@example.org")
    events = [
        event({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        for piece in pieces(arguments, [5, 12, 20])
    ]
    out = asyncio.run(passed(StreamGuard([PII], Results()), [*events, event({}, "tool_calls")]))
    (passage,) = [each for each in read_back([out]) if each.text]
    assert json.loads(passage.text) == {"mail": "[redacted: email]"}


def test_a_thought_goes_on_when_the_answer_begins() -> None:
    async def main() -> list[bytes]:
        guard = StreamGuard([PII], Results())
        given = [event({"reasoning_content": "so 4111"}), event({"content": "Yes "})]
        return [await guard.pass_on(each, is_end=False) for each in given]

    held, both = asyncio.run(main())
    assert held == b""
    assert shown(both, "reasoning_content") == "so 4111"
    assert shown(both) == "Yes "


def test_signs_of_life_go_on_while_something_is_held_back() -> None:
    async def main() -> list[bytes]:
        guard = StreamGuard([PII], Results())
        given = [event({"content": "ada@"}), b": ping\n\n", event({"content": "example.org."})]
        return [await guard.pass_on(each, is_end=False) for each in given]

    held, ping, rest = asyncio.run(main())
    assert (held, ping) == (b"", b": ping\n\n")
    assert "ada" not in rest.decode()


def test_what_is_no_json_is_not_let_through() -> None:
    with pytest.raises(GatewayError, match="no JSON"):
        asyncio.run(passed(StreamGuard([PII], Results()), [b"data: ada@example.org\n\n"]))


@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_a_stream_whose_rule_has_no_time_left(on_failure: Any) -> None:
    results = Results()
    guard = StreamGuard([rail(Pii(), budget_ms=0.0, on_failure=on_failure)], results)
    events = [event({"content": "ada@example.org"}), event({}, "stop")]
    if on_failure == "closed":
        with pytest.raises(GatewayError, match="longer than its"):
            asyncio.run(passed(guard, events))
    else:
        assert shown(asyncio.run(passed(guard, events))) == "ada@example.org"
    guard.tell()
    outcome = "refused" if on_failure == "closed" else "let_through"
    assert [each.outcome for each in results.all] == [outcome]


@pytest.mark.parametrize("on_failure", ["closed", "open"])
def test_the_arguments_of_a_call_have_a_bound(
    on_failure: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_MOST_HELD_BYTES", 10_000)
    call = event({"tool_calls": [{"index": 0, "function": {"arguments": "x" * 500}}]})

    async def main() -> list[bytes]:
        guard = StreamGuard([rail(Pii(), on_failure=on_failure)], Results())
        return [await guard.pass_on(call, is_end=False) for _ in range(30)]

    if on_failure == "closed":
        with pytest.raises(GatewayError, match="tool call in it is too long"):
            asyncio.run(main())
    else:
        # What was held goes on, and nothing is held any more.
        out = asyncio.run(main())
        assert b"".join(out) == call * 30
        assert out[-1] == call


async def test_a_long_document_is_read_in_parts() -> None:
    small = {"role": "user", "content": [{"type": "text", "text": "ada@example.org"}]}
    document = {"model": "m", "messages": [small] * 2000, "input": [[1, [2.5, None]]] * 20_000}
    read, passages = await documents.read(msgspec.json.encode(document))
    assert read == document
    assert len(passages) == 2000
    hostile = b'{"documents":[' + b",".join([b"[[]]"] * 300_000) + b"]}"
    with pytest.raises(documents.TooManyParts):
        await documents.read(hostile)


def test_a_schema_holds_all_of_it_back_and_masks_come_first() -> None:
    schema = rail(JsonSchema(schema='{"required": ["mail"]}'), action="block")
    events = [event({"content": piece}) for piece in ('{"mail":"ada@', 'example.org"}')]

    async def main() -> tuple[bytes, bytes]:
        guard = StreamGuard([PII, schema], Results())
        early = [await guard.pass_on(each, is_end=False) for each in events]
        return b"".join(early), await guard.pass_on(b"data: [DONE]\n\n", is_end=True)

    early, late = asyncio.run(main())
    assert early == b""
    assert json.loads(shown(late)) == {"mail": "[redacted: email]"}


async def test_a_long_text_lets_others_have_their_turns() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    hostile = [Passage("1 2 3 4 5 6 a@b. " * 60_000, "user")]
    seen, _ = await checking.examine(rail(Secrets()), hostile)
    seen, _ = await checking.examine(PII, hostile)
    other.cancel()
    assert seen.why == ""
    assert turns > 3


async def test_many_marks_are_put_into_a_text() -> None:
    body = {"messages": [{"role": "user", "content": "ada@example.org, " * 600}]}
    passages = texts.of_request(body)
    results = Results()
    assert await checking.enforce([PII, rail(Secrets())], "input", passages, results)
    assert body["messages"][0]["content"] == "[redacted: email], " * 600
    assert [(each.outcome, each.found) for each in results.all] == [
        ("masked", {"email": 600}), ("passed", {}),
    ]  # fmt: skip


def test_texts_of_a_request_are_all_but_names_and_numbers() -> None:
    document = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "one"},
            {"role": "user", "content": [{"type": "text", "text": "two"},
                                         {"type": "image_url", "image_url": {"url": "data:x"}}]},
            {"role": "tool", "tool_call_id": "c", "content": '{"three": "\\u0033"}'},
        ],
        "tools": [{"type": "function", "function": {"name": "four", "description": "five"}}],
        "user": "six",
        "temperature": 1,
    }  # fmt: skip
    found = [(each.role, each.text) for each in texts.of_request(document)]
    assert found == [
        ("system", "one"), ("user", "two"), ("tool", '{"three":"3"}'), ("developer", "four"),
        ("developer", "five"), ("developer", "six"),
    ]  # fmt: skip


def test_rules_that_did_not_change_are_taken_over() -> None:
    maker = RailMaker(lambda sealed, context: sealed)
    rule = Guardrail(id="grl_1", project_id="p", name="a", check=Pii())
    first = maker.ready([rule])["p"].asked
    again = maker.ready([rule, Guardrail(id="grl_2", project_id="q", name="b", check=Secrets())])
    assert again["p"].asked == first
    changed = maker.ready([msgspec.structs.replace(rule, mode="report")])["p"]
    assert changed.asked == ()
    assert len(changed.asked_report) == 1


@pytest.mark.parametrize("index", [[], {}, None, "0"])
async def test_an_index_that_is_no_number_is_none(index: Any) -> None:
    card = [{"content": "4111 1111 "}, {"content": "1111 1111"}]
    call = {"index": index, "function": {"arguments": '{"card": "4111 1111 1111 1111"}'}}
    events = [event(each, index=index) for each in [*card, {"tool_calls": [call]}]]
    out = await passed(StreamGuard([PII], Results()), events)
    assert b"1111" not in out
    assert shown(out) == "[redacted: card]"
