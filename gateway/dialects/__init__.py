"""The callers' dialects beside OpenAI chat: one translation for each request in another dialect.

Inside the gateway a request is OpenAI's chat/completions JSON, and so is the answer, whoever
gives it. A dialect makes the first from what its caller sent, and what its caller expects from
the second. OpenAI's own chat, completions and embeddings have no translation at all.

A route whose provider speaks a dialect itself could be given the caller's own bytes: the place
for that is `Gateway._infer`, before the translation is made.
"""

from __future__ import annotations

from typing import Protocol

from gateway.body import Parsed
from gateway.errors import GatewayError


class Translation(Protocol):
    """One request in a caller's dialect, and its answer.

    `chat` is the request for the replica; usage is always asked for in its streams. The caller
    does not wait for the answer of one in the background.
    """

    chat: Parsed
    background: bool

    def answer(self, content: bytes) -> bytes:
        """A whole chat answer as the caller expects it.

        Raises:
            GatewayError: It is no chat answer.
        """

    def feed(self, events: bytes) -> bytes:
        """Whole chat events as the caller's events; b"" while there is nothing to say.

        Raises:
            GatewayError: The replica gave an error event, or what is no chat event.
        """

    def end(self) -> bytes:
        """The last events of a stream that ended well."""

    def broken(self, error: GatewayError) -> bytes:
        """The last events of a stream that did not."""
