"""Reads what it must from a stream of server-sent events, and forwards the rest untouched.

Only whole events are handed on, so that an error event can follow whatever was sent. Usage is
always asked of the replica, so that tokens can be counted; a caller who did not ask for it must
not see it, so the one event that carries it is taken out.

The byte patterns below cannot match inside a JSON text: a quote there is preceded by a backslash.
"""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from gateway.errors import GatewayError
from gateway.usage import Usage

_END = b"\n\n"
_DATA = b"data:"
_DONE = re.compile(rb"(?:^|\n)data: ?\[DONE\]\n\n")
_USAGE_NULL = re.compile(rb',\s*"usage"\s*:\s*null')
_MODEL = re.compile(rb'"model"\s*:\s*"(?:[^"\\]|\\.)*"')
_MAX_EVENT_BYTES = 8 * 1024 * 1024


class EventTooLarge(Exception):
    """A single event is over the limit: this is no event stream."""


class _Event(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


_decode_event = msgspec.json.Decoder(_Event).decode


class EventStream:
    """Feed it reads, forward what it gives back.

    Args:
        keep_usage: The caller asked for usage, so it stays in.
        model: The name the caller knows the model by, as JSON.

    Attributes:
        named: What stands in each event with the model's name, so that it needs no change.
        can_pass: Whether events may go on in the form in which they come.
        passed_bytes: What went on without being fed, in its frames.
    """

    can_pass = True
    # What a provider's error event means, where it is known better than its text says.
    failure: GatewayError | None = None

    def __init__(self, *, keep_usage: bool, model: bytes) -> None:
        self.usage: Usage | None = None
        self.has_data = False
        self.passed_bytes = 0
        self.done = False
        self.error: bytes | None = None
        self._keep_usage = keep_usage
        self._model = model
        self.named = b'"model":' + model
        self._pending = b""

    def feed(self, chunk: bytes) -> bytes:
        """The events that are complete now; the start of the next one is kept back.

        Raises:
            EventTooLarge: An event grows without end.
        """
        data = self._pending + chunk if self._pending else chunk
        if data.find(b"\r") >= 0:
            data = data.replace(b"\r\n", _END[:1])
        if data.endswith(_END):
            self._pending = b""
            return self._inspect(data)
        end = data.rfind(_END) + len(_END)
        if end < len(_END):
            end = 0
        self._pending = data[end:]
        if len(self._pending) > _MAX_EVENT_BYTES:
            raise EventTooLarge
        return self._inspect(data[:end]) if end else b""

    @property
    def is_between_events(self) -> bool:
        """Whether its data has begun, and no part of an event is kept back."""
        return self.has_data and not self._pending

    def end(self) -> bytes:
        """What is still to be forwarded now that the replica has ended without saying so."""
        return b""

    @property
    def is_whole(self) -> bool:
        """Whether the stream may end here: its last event came, or the replica's own error."""
        return self.done or self.error is not None

    def _inspect(self, events: bytes) -> bytes:
        # `find` takes half as long as `in`, which first tries the bytes as a number.
        if not self.has_data and events.find(_DATA) >= 0:
            self.has_data = True
        if events.find(b"[DONE]") >= 0 and _DONE.search(events):
            self.done = True
        if events.find(self.named) < 0:
            events = named(events, self._model)
        if events.find(b'"usage"') >= 0:
            # Most events of some servers say no more of it than that there is none yet.
            without = _USAGE_NULL.sub(b"", events)
            if not self._keep_usage:
                events = without
            if without.find(b'"usage"') >= 0:
                return self._filter(events)
        return self._filter(events) if events.find(b'"error"') >= 0 else events

    def _filter(self, events: bytes) -> bytes:
        seen = [self._seen(event) for event in events.split(_END) if event]
        return b"".join([event + _END for event in seen if event])

    def _seen(self, event: bytes) -> bytes:
        """Learn from an event; it as the caller may see it, b"" when not at all."""
        start = 0 if event.startswith(_DATA) else event.find(b"\n" + _DATA) + 1
        if not event.startswith(_DATA, start):
            return event
        payload = event[start + len(_DATA) :]
        if payload.endswith(b"[DONE]"):
            return event
        try:
            parsed = _decode_event(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return event
        if parsed.error and bytes(parsed.error) != b"null" and not parsed.choices:
            self.error = payload
        if parsed.usage is None:
            return event
        self.usage = parsed.usage
        if self._keep_usage or parsed.choices is None:
            return event
        return _without_usage(payload) if parsed.choices else b""


def _without_usage(payload: bytes) -> bytes:
    document = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    del document["usage"]
    return _DATA + b" " + msgspec.json.encode(document)


@lru_cache(maxsize=1024)
def as_json(model: str) -> bytes:
    """A model's name as it stands in an answer."""
    return msgspec.json.encode(model)


def named(content: bytes, model: bytes) -> bytes:
    """An answer with the model name its caller knows, whatever the replica calls it.

    Args:
        content: Whole JSON documents or events.
        model: The name as JSON.
    """
    if content.find(b'"model":' + model) >= 0 or content.find(b'"model"') < 0:
        return content
    return _MODEL.sub(lambda _: b'"model":' + model, content)
