"""Token counts in the answers of endpoints that say them each in a way of their own.

OpenAI's images and transcriptions have `input_tokens` and `output_tokens`, Jina's rerank has
`total_tokens` alone, Cohere's has `meta.tokens`. Seconds and search units are no tokens: they are
not counted.
"""

from __future__ import annotations

import re

import msgspec

from gateway.usage import Tokens, Usage

_USAGE = re.compile(rb'"usage"\s*:\s*(\{(?:[^{}]|\{[^{}]*\})*\})')


class _Counts(msgspec.Struct):
    prompt_tokens: Tokens | None = None
    input_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    total_tokens: Tokens | None = None


class _Meta(msgspec.Struct):
    tokens: _Counts | None = None


class _Answer(msgspec.Struct):
    usage: _Counts | None = None
    meta: _Meta | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_counts = msgspec.json.Decoder(_Counts).decode


def of_answer(answer: bytes) -> Usage | None:
    """The tokens in a whole JSON answer; None when it names none."""
    try:
        found = _decode_answer(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return _usage(found.usage or (found.meta.tokens if found.meta else None))


def in_part(part: bytes) -> Usage | None:
    """The last `usage` that stands whole in a part of an answer, such as the end of a stream."""
    found = _USAGE.findall(part)
    try:
        return _usage(_decode_counts(found[-1])) if found else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _usage(counts: _Counts | None) -> Usage | None:
    if counts is None:
        return None
    given = counts.prompt_tokens if counts.prompt_tokens is not None else counts.input_tokens
    made = counts.output_tokens if counts.completion_tokens is None else counts.completion_tokens
    if given is None and made is None:
        given = counts.total_tokens
    return None if given is None else Usage(prompt_tokens=given, completion_tokens=made)
