"""Reads what it must from a stream of server-sent events, and forwards the rest untouched.

Usage is always asked of the replica, so that tokens can be counted. A caller who did not ask
for it must not see it: the one event that carries it is taken out.
"""

from __future__ import annotations

import msgspec

_END = b"\n\n"
_DATA = b"data: "
_DONE = b"data: [DONE]"
_MAX_PENDING_BYTES = 1 << 20


class PromptDetails(msgspec.Struct):
    """Part of `usage`."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Token counts as OpenAI's API gives them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None


class _Event(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: Usage | None = None
    error: msgspec.Raw | None = None


class UsageOnly(msgspec.Struct):
    """A whole answer, of which only `usage` matters here."""

    usage: Usage | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_answer = msgspec.json.Decoder(UsageOnly).decode


def usage_of(answer: bytes) -> Usage | None:
    """The usage in a whole JSON answer; None when it has none."""
    try:
        return _decode_answer(answer).usage
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None


class EventStream:
    """Feed it reads, forward what it gives back."""

    def __init__(self, *, keep_usage: bool) -> None:
        self.usage: Usage | None = None
        self.done = False
        self.failed = False
        self.has_data = False
        self._keep_usage = keep_usage
        self._pending = b""

    def feed(self, chunk: bytes) -> bytes:
        """The complete events so far; the start of the next one is kept back."""
        data = self._pending + chunk if self._pending else chunk
        end = data.rfind(_END)
        if end < 0:
            if len(data) > _MAX_PENDING_BYTES:
                self._pending = b""
                return data
            self._pending = data
            return b""
        end += len(_END)
        self._pending = data[end:]
        whole = data if end == len(data) else data[:end]
        return self._inspect(whole)

    def rest(self) -> bytes:
        """What was kept back when the stream ended."""
        rest, self._pending = self._pending, b""
        return rest

    def _inspect(self, events: bytes) -> bytes:
        if not self.has_data and _DATA in events:
            self.has_data = True
        if _DONE in events:
            self.done = True
        if b'"usage"' not in events and b'"error"' not in events:
            return events
        return b"".join(
            event + _END for event in events.split(_END) if event and self._forwards(event)
        )

    def _forwards(self, event: bytes) -> bool:
        if not event.startswith(_DATA) or event.startswith(_DONE):
            return True
        try:
            parsed = _decode_event(event[len(_DATA) :])
        except (msgspec.DecodeError, msgspec.ValidationError):
            return True
        if parsed.error is not None and parsed.choices is None:
            self.failed = True
        if parsed.usage is None:
            return True
        self.usage = parsed.usage
        return self._keep_usage or bool(parsed.choices)
