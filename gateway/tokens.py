"""Counts a prompt's tokens by asking the replica that would get it; never an estimate.

llama.cpp counts at `/v1/chat/completions/input_tokens`, vLLM at `/tokenize`; both take the chat
request itself, so that the chat template and the tools are in the count. Source: llama.cpp's
tools/server/README.md and vLLM's entrypoints/serve/tokenize/protocol.py (November 2026);
llama.cpp's was run here, vLLM's was not.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from core.contracts.request_fact import RequestFact
from gateway.body import Parsed
from gateway.errors import GatewayError
from gateway.proxy import Proxy
from gateway.table import Target

# path at the replica → the field of its answer that is the count
_COUNTERS = {"/v1/chat/completions/input_tokens": "input_tokens", "/tokenize": "count"}
_NO_SUCH_PATH = frozenset({404, 405, 501})


async def count(
    proxy: Proxy, find: Callable[[str], Target], body: Parsed, fact: RequestFact
) -> int:
    """How many tokens the prompt of a chat request has.

    Args:
        proxy: Carries the question.
        find: Looks a model's route up.
        body: A chat request without a stream.
        fact: Of the request; replica and attempts are filled in.

    Raises:
        GatewayError: The route's server cannot count, cannot be reached, or refuses the request.
    """
    if all(backend.provider is None for backend in find(body.model).backends):
        for path, field in _COUNTERS.items():
            found = await _asked(proxy, find, path, body, fact)
            counted = found.get(field)
            if isinstance(counted, int):
                return counted
    raise GatewayError(
        "capability",
        f"{body.model!r} cannot count tokens: its server has no way to. Send the request itself; "
        "its usage says how many there were.",
        param="model",
    )


async def _asked(
    proxy: Proxy, find: Callable[[str], Target], path: str, body: Parsed, fact: RequestFact
) -> dict[str, object]:
    """The replica's answer; empty when it has no such path."""
    try:
        answer = await proxy.begin(find, path, body, fact)
    except GatewayError as error:
        if error.upstream_status in _NO_SUCH_PATH:
            return {}
        raise
    try:
        found: dict[str, object] = msgspec.json.decode(answer.first, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    finally:
        answer.release()
    return found
