"""What every provider's adapter is, and how its refusals become the caller's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

from gateway.body import Parsed
from gateway.errors import GatewayError, from_upstream
from gateway.providers.streams import Translator

# Codes of errors that asking the same account again does not help.
PERMANENT = frozenset({"insufficient_quota", "provider_credentials", "provider_model"})
_CHAT = "/v1/chat/completions"
# What providers say of a prompt that does not fit; most have no code for it.
_TOO_LONG = re.compile(
    r"context[ _]length|context size|context window|(prompt|input) is too long|too large for model"
    r"|input token count|exceeds the maximum number of tokens|inputs? tokens? \+",
    re.IGNORECASE,
)
_NO_CREDIT = re.compile(r"credit balance|insufficient balance|insufficient_quota", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Account:
    """Where a model is hosted, and what opens it; secrets stay out of the repr."""

    base_url: str
    kind: str
    model: str
    options: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> str:
        """The path of the base URL, without a slash at its end."""
        return urlsplit(self.base_url).path.rstrip("/")


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request as the provider gets it; the path is percent-encoded."""

    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes


@dataclass(frozen=True, slots=True)
class Refusal:
    """A provider's error: its message, and its code where it has a name."""

    message: str = ""
    code: str | None = None
    param: str | None = None
    retry_after_s: int | None = None


class Provider:
    """One model at one provider."""

    def __init__(self, account: Account) -> None:
        self.account = account

    async def ready(self, connect_s: float) -> None:
        """Have what a request needs, such as a token.

        Raises:
            ConnectFailed: The token's server cannot be reached.
            GatewayError: It refuses.
        """

    def request(self, path: str, body: Parsed) -> Outgoing:
        """Translate a request.

        Args:
            path: OpenAI's path, such as `/v1/chat/completions`.
            body: OpenAI's body.

        Raises:
            GatewayError: The provider cannot do what is asked; names the field.
        """
        raise NotImplementedError

    def answer(self, content: bytes) -> bytes:
        """Translate a whole answer. Raises GatewayError: it is none."""
        raise NotImplementedError

    def stream(self) -> Translator:
        """A translator for the events of one answer."""
        raise NotImplementedError

    def refusal(self, content: bytes) -> Refusal:
        """Read the provider's error document; empty when it is none."""
        raise NotImplementedError

    def error(
        self, status: int, content: bytes, model: str, *, retry_after_s: int | None = None
    ) -> GatewayError:
        """Translate an error.

        Args:
            status: The provider's HTTP status.
            content: Its error document, or anything else.
            model: The name the caller knows the model by.
            retry_after_s: What it said in `Retry-After`.
        """
        found = self.refusal(content)
        return translated(status, found, model, retry_after_s or found.retry_after_s)


def translated(
    status: int, refusal: Refusal, model: str, retry_after_s: int | None = None
) -> GatewayError:
    """A provider's refusal as the caller's error.

    What is Bud's own doing (credentials, credit, the name of the model) is not told as the caller's
    fault, and without the provider's text where that may quote a credential.
    """
    message, code = refusal.message, refusal.code
    if code is not None and code.isdigit():
        code = None  # the status once more, as vLLM and llama.cpp give it
    if status == 402 or _NO_CREDIT.search(f"{code} {message}"):
        return GatewayError(
            "upstream_error", f"The account at the provider of {model!r} has no credit left.",
            status=429, code="insufficient_quota",
        )  # fmt: skip
    if status in (401, 403):
        return GatewayError(
            "upstream_error",
            f"The provider of {model!r} refuses Bud's credentials. Renew them on the Models page.",
            code="provider_credentials",
        )
    if status == 404:
        return GatewayError(
            "upstream_error", f"The provider of {model!r} does not know the model: {message}",
            code="provider_model",
        )  # fmt: skip
    if 400 <= status < 500 and status != 429 and _TOO_LONG.search(f"{code} {message}"):
        return GatewayError("context_length", message, param="messages")
    if status in (503, 529):
        return GatewayError(
            "upstream_error", f"The provider of {model!r} is overloaded: {message}",
            status=503, code="provider_overloaded", retry_after_s=retry_after_s or 2,
        )  # fmt: skip
    if status in (408, 424):
        return GatewayError("upstream_error", f"The provider of {model!r} failed: {message}")
    document = {"error": {"message": message, "code": code, "param": refusal.param}}
    return from_upstream(status, msgspec.json.encode(document), model, retry_after_s=retry_after_s)


def require_chat(path: str, kind: str) -> None:
    """Raises GatewayError: the endpoint is another than chat, which is all this kind has."""
    if path != _CHAT:
        raise GatewayError("capability", f"{kind} has chat/completions only.", param="model")
