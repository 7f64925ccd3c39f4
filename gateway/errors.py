"""Errors in the shape that OpenAI's clients understand."""

from __future__ import annotations

import msgspec

# error_class of the request fact → (HTTP status, OpenAI type, OpenAI code)
CLASSES: dict[str, tuple[int, str, str | None]] = {
    "invalid_request": (400, "invalid_request_error", None),
    "context_length": (400, "invalid_request_error", "context_length_exceeded"),
    "capability": (400, "invalid_request_error", "capability_missing"),
    "authentication": (401, "invalid_request_error", "invalid_api_key"),
    "permission": (403, "invalid_request_error", "model_not_allowed"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "too_large": (413, "invalid_request_error", "request_too_large"),
    "no_replica": (503, "server_error", "model_not_ready"),
    "connect": (502, "server_error", "replica_unreachable"),
    "upstream_error": (502, "server_error", "replica_error"),
    "upstream_broke": (502, "server_error", "stream_broken"),
    "timeout": (504, "server_error", "replica_timeout"),
    "gateway_stopped": (503, "server_error", "gateway_stopping"),
    "internal": (500, "server_error", "internal_error"),
}


class GatewayError(Exception):
    """An answer to the caller that is not the model's.

    Args:
        error_class: A key of `CLASSES`, kept in the request fact.
        message: What happened and what to do; names the value at fault, never a secret.
        param: The field of the request at fault.
        status: Overrides the class's HTTP status.
        code: Overrides the class's code.
        retry_after_s: Sent as `Retry-After`.
    """

    def __init__(
        self,
        error_class: str,
        message: str,
        *,
        param: str | None = None,
        status: int | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        default_status, self.type, default_code = CLASSES[error_class]
        self.error_class = error_class
        self.message = message
        self.param = param
        self.status = status or default_status
        self.code = code or default_code
        self.retry_after_s = retry_after_s

    def body(self) -> bytes:
        """The error as OpenAI's JSON document."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": self.message,
                    "type": self.type,
                    "param": self.param,
                    "code": self.code,
                }
            }
        )

    def event(self) -> bytes:
        """The error as the last event of a stream."""
        return b"data: " + self.body() + b"\n\n"


class _UpstreamDetail(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _UpstreamBody(msgspec.Struct):
    error: _UpstreamDetail | str = ""


def from_upstream(status: int, body: bytes, model: str) -> GatewayError:
    """Translate a replica's error; a fault of the request stays a fault of the request."""
    try:
        error = msgspec.json.decode(body, type=_UpstreamBody).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        error = ""
    detail = error if isinstance(error, _UpstreamDetail) else _UpstreamDetail(message=error)
    message = detail.message or f"The server of {model!r} answered with status {status}."
    if detail.type == "exceed_context_size_error" or "context size" in message:
        return GatewayError("context_length", message, param="messages")
    if detail.type == "not_supported_error":
        return GatewayError("capability", message)
    if status in (400, 404, 405, 422):
        code = detail.code if isinstance(detail.code, str) else None
        return GatewayError("invalid_request", message, param=detail.param, code=code)
    if status == 503:
        return GatewayError("no_replica", f"{model!r} is loading; try again soon.", retry_after_s=2)
    return GatewayError("upstream_error", message)
