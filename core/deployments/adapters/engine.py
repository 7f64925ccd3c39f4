"""Talks to a running model server over its OpenAI-compatible API."""

from __future__ import annotations

import httpx

from core.deployments.schemas import Task
from core.kernel.crypto import Secret
from core.kernel.errors import UpstreamFailed

_HEALTH_TIMEOUT_S = 2.0
_ANSWER_TIMEOUT_S = 120.0


class EngineClient:
    """One HTTP client for every server of this machine."""

    def __init__(self) -> None:
        self._client = httpx.Client(timeout=_HEALTH_TIMEOUT_S, trust_env=False)

    def healthy(self, port: int) -> bool:
        """Whether the server has loaded its model and answers."""
        try:
            return self._client.get(f"{base_url(port)}/health").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        """Close its connections."""
        self._client.close()


def check_answer(port: int, credential: Secret, task: Task) -> str:
    """Ask for one real token, or one embedding, or one score; what came back, in words.

    Raises:
        UpstreamFailed: It does not answer, or not in the shape it should.
    """
    path, body = _PROBES[task]
    try:
        answer = httpx.post(
            f"{base_url(port)}{path}",
            json=body,
            headers={"Authorization": f"Bearer {credential.reveal()}"},
            timeout=_ANSWER_TIMEOUT_S,
            trust_env=False,
        )
        answer.raise_for_status()
        document = answer.json()
        if task == "embedding":
            return f"an embedding of {len(document['data'][0]['embedding'])} numbers"
        if task == "rerank":
            return f"a score of {document['results'][0]['relevance_score']:.3g}"
        return f"{document['usage']['completion_tokens']} token"
    except (httpx.HTTPError, KeyError, IndexError, ValueError) as error:
        raise UpstreamFailed(
            f"The model server started but does not answer: {error}.",
            remedy="Read the replica's log; a model without a head for this task cannot be used.",
        ) from error


_PROBES = {
    "chat": ("/v1/completions", {"prompt": "Hello", "max_tokens": 1}),
    "embedding": ("/v1/embeddings", {"input": "Hello"}),
    "rerank": ("/v1/rerank", {"query": "Hello", "documents": ["Hello"]}),
}


def base_url(port: int) -> str:
    """Where a server listens."""
    return f"http://127.0.0.1:{port}"
