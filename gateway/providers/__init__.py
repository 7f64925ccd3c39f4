"""The replica's side: hosted providers' interfaces, one file each.

The inner form is OpenAI's: a provider takes an OpenAI request and gives OpenAI answers, events,
usage and errors, so that any caller's dialect works with any provider. Replicas that Bud runs
speak OpenAI's dialect themselves and pass by all of this.
"""

from __future__ import annotations

import msgspec

from core.contracts.route_table import Hosted
from core.kernel.errors import NotFound
from gateway.providers import openai_compatible
from gateway.providers.anthropic import Anthropic
from gateway.providers.azure_openai import AzureOpenAI
from gateway.providers.base import PERMANENT, Account, Provider
from gateway.providers.bedrock import Bedrock
from gateway.providers.gemini import Gemini, Vertex
from gateway.providers.openai_compatible import OpenAICompatible
from gateway.providers.streams import TranslatedStream

__all__ = ["KINDS", "PERMANENT", "Provider", "TranslatedStream", "make", "require"]

KINDS: dict[str, type[Provider]] = {
    "anthropic": Anthropic,
    "azure_openai": AzureOpenAI,
    "bedrock": Bedrock,
    "gemini": Gemini,
    "vertex": Vertex,
} | dict.fromkeys(openai_compatible.SERVERS, OpenAICompatible)


def require(kind: str) -> None:
    """Raises NotFound: the gateway has no adapter of this kind."""
    if kind not in KINDS:
        raise NotFound(f"The gateway knows no provider {kind!r}.", remedy="Start a newer gateway.")


def make(base_url: str, hosted: Hosted, credentials: str) -> Provider:
    """The adapter for a hosted replica.

    Args:
        base_url: Of the provider's interface, with its path.
        hosted: Kind, model and options.
        credentials: A JSON object of named parts.
    """
    named = msgspec.json.decode(credentials, type=dict[str, str])
    account = Account(base_url, hosted.kind, hosted.model, hosted.options, named)
    return KINDS[hosted.kind](account)
