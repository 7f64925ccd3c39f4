"""Streams of providers, translated on their way to the caller.

A translator is fed a provider's reads and gives OpenAI's events, the last of them `[DONE]`; the
gateway's own `EventStream` then reads usage and errors out of them as of any replica's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from core.kernel import clock, ids
from gateway.errors import GatewayError
from gateway.sse import EventStream, EventTooLarge

DONE = b"data: [DONE]\n\n"
_END = b"\n\n"
_MAX_EVENT_BYTES = 8 * 1024 * 1024


class Translator:
    """Turns one provider's stream into OpenAI's.

    `failure` is what an error inside the stream means, once it has come.
    """

    failure: GatewayError | None = None

    def feed(self, read: bytes) -> bytes:
        """OpenAI's events for what has come. Raises EventTooLarge."""
        raise NotImplementedError

    def end(self) -> bytes:
        """What is left when the provider ends: b"" when its answer broke off."""
        return b""


class SseTranslator(Translator):
    """A translator of server-sent events: `event` gets each one's name and data."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, read: bytes) -> bytes:
        """OpenAI's events for the provider's events that are whole now."""
        data = (self._pending + read).replace(b"\r\n", b"\n")
        whole, found, self._pending = data.rpartition(_END)
        if len(self._pending) > _MAX_EVENT_BYTES:
            raise EventTooLarge
        if not found:
            return b""
        return b"".join([self._one(event) for event in whole.split(_END) if event])

    def _one(self, event: bytes) -> bytes:
        lines = event.strip(b"\n").split(b"\n")
        named = [line[6:].strip() for line in lines if line.startswith(b"event:")]
        data = b"\n".join([line[5:].strip() for line in lines if line.startswith(b"data:")])
        if not data:
            return b": \n\n"  # a sign of life goes on as one
        return self.event(named[0].decode("latin-1") if named else "", data)

    def event(self, name: str, data: bytes) -> bytes:
        """OpenAI's events for one of the provider's."""
        raise NotImplementedError


class Chunks:
    """Writes the chunks of one chat answer."""

    def __init__(self) -> None:
        self.id = ids.new_id("chatcmpl")
        self._frame: dict[str, Any] = {
            "object": "chat.completion.chunk",
            "created": int(clock.unix_s()),
            "model": "",
        }
        self._tools = 0
        self._begun = False

    def delta(self, finish_reason: str | None = None, **delta: Any) -> bytes:
        """A chunk with a part of the message; the first one bears the role."""
        if not self._begun:
            self._begun, delta = True, {"role": "assistant", **delta}
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return self._chunk(choices=[choice])

    def tool_call(self, call_id: str, name: str, arguments: str = "", **extra: Any) -> bytes:
        """The start of a tool call."""
        self._tools += 1
        function = {"name": name, "arguments": arguments}
        call = {"index": self._tools - 1, "id": call_id, "type": "function", "function": function}
        return self.delta(tool_calls=[call | extra])

    def tool_arguments(self, text: str) -> bytes:
        """More of the arguments of the tool call that was started last."""
        return self.delta(tool_calls=[{"index": self._tools - 1, "function": {"arguments": text}}])

    @property
    def has_tools(self) -> bool:
        """Whether a tool is called."""
        return self._tools > 0

    def end(self, usage: dict[str, Any]) -> bytes:
        """The chunk with the usage, and the end."""
        return self._chunk(choices=[], usage=usage) + DONE

    def _chunk(self, **fields: Any) -> bytes:
        return b"data: " + msgspec.json.encode({"id": self.id, **self._frame, **fields}) + _END


class TranslatedStream(EventStream):
    """An `EventStream` behind a translator."""

    can_pass = False

    def __init__(self, translator: Translator, *, keep_usage: bool, model: bytes) -> None:
        super().__init__(keep_usage=keep_usage, model=model)
        self._translator = translator

    @property
    def failure(self) -> GatewayError | None:  # type: ignore[override]
        """What the error inside the stream means."""
        return self._translator.failure

    def feed(self, chunk: bytes) -> bytes:
        """The events that are complete now, in OpenAI's form."""
        return super().feed(self._translator.feed(chunk))

    def end(self) -> bytes:
        """What is left when the provider ends."""
        return super().feed(self._translator.end())
