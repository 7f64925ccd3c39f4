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
    "blocked": (403, "invalid_request_error", "request_blocked"),
    "guardrail": (400, "invalid_request_error", "guardrail_blocked"),
    "not_found": (404, "invalid_request_error", "model_not_found"),
    "too_large": (413, "invalid_request_error", "request_too_large"),
    "rate_limited": (429, "rate_limit_error", "rate_limit_exceeded"),
    "budget_exceeded": (429, "insufficient_quota", "insufficient_quota"),
    "limits_unavailable": (503, "server_error", "limits_unavailable"),
    "no_replica": (503, "server_error", "model_not_ready"),
    "connect": (503, "server_error", "replica_unreachable"),
    "upstream_error": (502, "server_error", "replica_error"),
    "upstream_broke": (502, "server_error", "stream_broken"),
    "timeout": (504, "server_error", "replica_timeout"),
    "gateway_stopped": (503, "server_error", "gateway_stopping"),
    "internal": (500, "server_error", "internal_error"),
}
_REQUEST_FAULTS = frozenset({400, 404, 405, 413, 415, 422})


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
        self.upstream_status: int | None = None  # what the replica answered, if it did

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
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _UpstreamBody(msgspec.Struct):
    error: _UpstreamDetail | str = ""
    message: str = ""


def from_upstream(
    status: int, body: bytes, model: str, *, retry_after_s: int | None = None
) -> GatewayError:
    """Translate a replica's error; a fault of the request stays a fault of the request.

    Args:
        status: The replica's HTTP status; 500 for an error event inside a stream.
        body: Its JSON document, or anything else.
        model: The model the caller named.
        retry_after_s: What the replica said in `Retry-After`.
    """
    error = _translated(status, body, model, retry_after_s)
    error.upstream_status = status
    return error


def _translated(status: int, body: bytes, model: str, retry_after_s: int | None) -> GatewayError:
    detail = _detail(body)
    message = detail.message or f"The server of {model!r} answered with status {status}."
    code = detail.code if isinstance(detail.code, str) else None
    if detail.type == "exceed_context_size_error" or code == "context_length_exceeded":
        return _context_length(detail, message)
    if status == 501 or detail.type == "not_supported_error":
        return GatewayError("capability", f"{model!r} cannot do this: {message}", param="model")
    if status in _REQUEST_FAULTS:
        return GatewayError(
            "invalid_request", message, param=detail.param, code=code,
            status=413 if status == 413 else 400,
        )  # fmt: skip
    if status == 429:
        return GatewayError(
            "upstream_error", message, status=429, code=code or "rate_limit_exceeded",
            retry_after_s=retry_after_s or 1,
        )  # fmt: skip
    if status == 503:
        return GatewayError(
            "no_replica", f"{model!r} is not ready: {message}", retry_after_s=retry_after_s or 2
        )
    if status in (401, 403):
        # Bud's own credential for the replica was refused: not the caller's fault.
        return GatewayError(
            "upstream_error",
            f"The server of {model!r} refused Bud's own credential. Restart the deployment.",
        )
    return GatewayError("upstream_error", message, code=code, status=500 if status == 500 else 502)


def _detail(body: bytes) -> _UpstreamDetail:
    try:
        document = msgspec.json.decode(body, type=_UpstreamBody)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _UpstreamDetail()
    if isinstance(document.error, _UpstreamDetail):
        return document.error
    return _UpstreamDetail(message=document.error or document.message)


def _context_length(detail: _UpstreamDetail, message: str) -> GatewayError:
    if detail.n_ctx is not None and detail.n_prompt_tokens is not None:
        message = (
            f"This model's maximum context length is {detail.n_ctx} tokens, but the prompt has "
            f"{detail.n_prompt_tokens} tokens. Shorten it, or give the deployment a larger context."
        )
    return GatewayError("context_length", message, param="messages")
