"""The endpoints that ask a model for something and are carried as they come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint.

    Attributes:
        name: In facts, metrics and the scopes of keys.
        capability: What a route must be able to do.
        path: At the replica.
        is_form: The request is a form with files, else JSON.
        counts_tokens: Its price and its limits are by tokens, so they are estimated before.
        is_captured: Question and answer are texts that a project can keep.
        answers_texts: Guardrails can read what it answers.
    """

    name: str
    capability: str
    path: str
    is_form: bool = False
    counts_tokens: bool = False
    is_captured: bool = False
    answers_texts: bool = True


_RERANK = Endpoint("rerank", "rerank", "/v1/rerank", counts_tokens=True, is_captured=True)

ENDPOINTS: dict[str, Endpoint] = {
    "/v1/moderations": Endpoint("moderations", "moderation", "/v1/moderations", is_captured=True),
    # Jina's and Cohere's clients, and those of llama.cpp and vLLM, each know it by another path.
    "/v1/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/rerank": _RERANK,
    "/v1/images/generations": Endpoint(
        "images.generations", "image", "/v1/images/generations", is_captured=True
    ),
    "/v1/audio/speech": Endpoint("audio.speech", "speech", "/v1/audio/speech", answers_texts=False),
    "/v1/audio/transcriptions": Endpoint(
        "audio.transcriptions", "transcription", "/v1/audio/transcriptions", is_form=True
    ),
    "/v1/audio/translations": Endpoint(
        "audio.translations", "transcription", "/v1/audio/translations", is_form=True
    ),
}
