"""What routing needs of a request's body, and the body that the replica gets."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import GatewayError


class _Fields(msgspec.Struct):
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    # Of any type: what is wrong with these is for the replica to say.
    max_completion_tokens: Any = None
    max_tokens: Any = None
    n: Any = None


_decode_fields = msgspec.json.Decoder(_Fields).decode
_decode_document = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Parsed(msgspec.Struct, frozen=True):
    """A body and the few fields of it that matter here.

    `max_tokens` is the longest answer it asks for, None when it says nothing; `choices` is how many
    answers.
    """

    raw: bytes
    model: str
    stream: bool
    stream_options: dict[str, Any] | None
    max_tokens: int | None = None
    choices: int = 1

    @property
    def wants_usage(self) -> bool:
        """Whether the caller asked for usage in the stream."""
        return self.stream_options is not None and bool(self.stream_options.get("include_usage"))

    def to_model(self, model: str) -> Parsed:
        """The same request to another model. Raises GatewayError: it is not JSON."""
        document = _document(self.raw)
        document["model"] = model
        return msgspec.structs.replace(self, raw=msgspec.json.encode(document), model=model)

    def for_replica(self, upstream_model: str) -> bytes:
        """The body to send: the replica's model name, and usage asked for in a stream.

        What needs no change is forwarded byte for byte. Raises GatewayError: it is not JSON.
        """
        add_usage = self.stream and not self.wants_usage
        if self.model == upstream_model:
            if not add_usage:
                return self.raw
            if self.stream_options is None and b'"stream_options"' not in self.raw:
                # The common case costs a splice, not a parse.
                return self.raw.rstrip()[:-1] + b',"stream_options":{"include_usage":true}}'
        document = _document(self.raw)
        document["model"] = upstream_model
        if add_usage:
            document["stream_options"] = {**(self.stream_options or {}), "include_usage": True}
        return msgspec.json.encode(document)


def _document(raw: bytes) -> dict[str, Any]:
    try:
        return dict(_decode_document(raw))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # In a name that was of no interest before.
        raise not_json(error) from None


def parse(raw: bytes, *, can_stream: bool) -> Parsed:
    """Read model and stream from a body.

    Raises:
        GatewayError: It is not JSON, names no model, or a field has the wrong type.
    """
    try:
        fields = _decode_fields(raw)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(error) from None
    if not fields.model:
        raise GatewayError(
            "invalid_request",
            "The request names no model. List yours with GET /v1/models.",
            param="model",
        )
    most, choices = fields.max_completion_tokens or fields.max_tokens, fields.n
    return Parsed(
        raw,
        fields.model,
        can_stream and bool(fields.stream),
        fields.stream_options,
        most if type(most) is int else None,
        choices if type(choices) is int else 1,
    )


def invalid(error: msgspec.ValidationError, place: str = "$") -> GatewayError:
    """The caller's error for a field that is missing or has the wrong type.

    Args:
        error: What msgspec found.
        place: Where in the body it looked.
    """
    said, found, path = str(error).rpartition("`$")
    if not found:
        said, path = f"{error} - at ", "`"
    place += path.rstrip("`")
    field = place.removeprefix("$").lstrip(".").split(".")[0].split("[")[0] or None
    message = str(error) if place == "$" else f"{said}`{place}`"
    return GatewayError(
        "invalid_request", f"The request body is not valid: {message}.", param=field
    )


def not_json(error: Exception) -> GatewayError:
    """The caller's error for a body that is no JSON."""
    return GatewayError("invalid_request", f"The request body is not valid JSON: {error}.")
