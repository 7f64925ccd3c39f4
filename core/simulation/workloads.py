"""Workloads to start from: how long prompts and answers are, and how many run at once.

Lengths are means. Where a figure was measured, its source says where; what is an assumption is
called one.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from core.kernel.errors import NotFound


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of use.

    Attributes:
        isl: Mean input tokens of a request.
        osl: Mean output tokens.
        concurrency: Requests in flight to begin with.
        prefix_hit_share: Share of the input that the prefix cache already holds, 0 to 1.
        why: Where the numbers come from, in a sentence or two.
    """

    id: str
    name: str
    isl: int
    osl: int
    concurrency: int
    prefix_hit_share: float
    why: str


WORKLOADS = (
    Workload(
        "chat",
        "Chat",
        1155,
        211,
        32,
        0.0,
        "Mean lengths of the 19,366 requests of the Azure LLM inference trace 2023, "
        "conversation. The trace says nothing of shared prefixes, so none are assumed.",
    ),
    Workload(
        "long-chat",
        "Long conversations",
        12_035,
        343,
        32,
        0.37,
        "Mean lengths of the 12,031 requests of the Mooncake conversation trace (2024), and the "
        "share of its blocks that an earlier request had begun with: what a cache that never "
        "forgets would hit.",
    ),
    Workload(
        "rag",
        "RAG",
        4096,
        256,
        32,
        0.1,
        "An assumption: eight passages of 500 tokens with instructions and a question, and an "
        "answer as long as the Azure conversation trace's; only the instructions are shared.",
    ),
    Workload(
        "summarising",
        "Summarising",
        8192,
        1024,
        16,
        0.0,
        "The long-prompt point (8k in, 1k out) of InferenceX, which most of the measured rows of "
        "the simulator share; every document is another one, so no prefix is shared.",
    ),
    Workload(
        "code-completion",
        "Code completion",
        2048,
        28,
        64,
        0.0,
        "Mean lengths of the 8,819 requests of the Azure LLM inference trace 2023, code. The "
        "trace says nothing of shared prefixes, so none are assumed.",
    ),
    Workload(
        "agents",
        "Agents",
        32_768,
        256,
        16,
        0.8,
        "An assumption: 128 input tokens for each output token (the coding agents in the vLLM "
        "blog of 2026-05-06 had 131), most of them seen before (66 to 97% of such traces, by "
        "InferenceX issue 1632).",
    ),
    Workload(
        "batch",
        "Batch",
        1024,
        1024,
        256,
        0.0,
        "The balanced point (1k in, 1k out) of InferenceX at a concurrency that fills a GPU: "
        "nobody waits for the first token.",
    ),
)


def find(workload_id: str) -> Workload:
    """The workload of that id. Raises NotFound with the nearest."""
    for each in WORKLOADS:
        if each.id == workload_id:
            return each
    near = difflib.get_close_matches(workload_id, [each.id for each in WORKLOADS], 2, 0.0)
    raise NotFound(
        f"There is no workload {workload_id[:60]!r}.", remedy=f"The nearest are {', '.join(near)}."
    )
