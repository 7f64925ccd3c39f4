"""Token counts as a replica reports them, and what they cost."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from core.contracts.route_table import Price

# In an answer too large to be kept whole, `usage` stands near its beginning or its end.
_USAGE = re.compile(rb'"usage"\s*:\s*(\{(?:[^{}]|\{[^{}]*\})*\})')


# A count that a replica may give. One that no request can have is none: limits and budgets, which
# other callers share, would go by it.
Tokens = Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)]


class PromptDetails(msgspec.Struct):
    """Part of `usage`."""

    cached_tokens: Tokens | None = None


class Usage(msgspec.Struct):
    """Token counts as OpenAI's API gives them."""

    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    total_tokens: Tokens | None = None
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Input tokens that were read from the KV cache; None when the replica does not say."""
        return self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None


class _Answer(msgspec.Struct):
    usage: Usage | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_usage = msgspec.json.Decoder(Usage).decode


def of_answer(answer: bytes) -> Usage | None:
    """The usage in a whole JSON answer; None when it has none."""
    try:
        return _decode_answer(answer).usage
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def in_part(part: bytes) -> Usage | None:
    """The last usage object that stands whole in a part of an answer; None without one."""
    found = _USAGE.findall(part)
    try:
        return _decode_usage(found[-1]) if found else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def cost_usd(price: Price | None, usage: Usage | None) -> float | None:
    """The cost of a request by token prices in USD; None when a price or a count is missing."""
    if price is None or usage is None or (input_tokens := usage.prompt_tokens) is None:
        return None
    input_price = price.input_usd_per_million_tokens
    output_price = price.output_usd_per_million_tokens
    output_tokens = usage.completion_tokens or 0
    if input_price is None or (output_price is None and output_tokens):
        return None
    total = input_tokens * input_price + output_tokens * (output_price or 0.0)
    cached_price = price.cached_usd_per_million_tokens
    if usage.prompt_tokens_details is not None and cached_price is not None:
        total -= min(usage.cached_tokens or 0, input_tokens) * (input_price - cached_price)
    return total / 1_000_000
