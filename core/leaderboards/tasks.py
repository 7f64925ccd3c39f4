"""What people want a model for, and the boards that say how good it is at that.

Only the figure that a board ranks by stands here, so that each benchmark counts once. Boards that
repeat others (WildBench's comparison columns, LMArena's history) or what vendors say of themselves
(llm-stats) are shown on their own page and never combined.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.kernel.errors import NotFound


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One column of a published board, by its names in the metric catalogue."""

    board: str
    variant: str
    metric: str


@dataclass(frozen=True, slots=True)
class TaskBoard:
    """One board of a task; of several benchmarks one order is made before boards are combined.

    Attributes:
        key: Its name in links and weights.
        title: Its name for people.
        publisher: Who runs it; boards of one publisher share a harness.
        what: What it asks of a model, in a few words.
        benchmarks: The columns it ranks by.
    """

    key: str
    title: str
    publisher: str
    what: str
    benchmarks: tuple[Benchmark, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A view of the leaderboards."""

    key: str
    title: str
    boards: tuple[TaskBoard, ...]


def _one(
    key: str, title: str, publisher: str, what: str, board: str, variant: str, *metrics: str
) -> TaskBoard:
    return TaskBoard(
        key, title, publisher, what, tuple(Benchmark(board, variant, each) for each in metrics)
    )


def _mteb(key: str, title: str, what: str, names: str) -> TaskBoard:
    benchmarks = tuple(Benchmark("MTEB", f"{name}/test", "main_score") for name in names.split())
    return TaskBoard(f"mteb-{key}", f"MTEB {title}", "MTEB", what, benchmarks)


_CHAT = (
    _one("lmarena", "LMArena text", "LMArena", "votes of people between two answers",
         "LMArena", "text", "arena_score"),
    _one("alpacaeval", "AlpacaEval 2.0", "Stanford", "a judge model, corrected for length",
         "AlpacaEval", "AlpacaEval 2.0 (weighted gpt4-turbo)", "length_controlled_winrate"),
    _one("wildbench", "WildBench", "Ai2", "hard questions of real users, scored by a judge model",
         "WildBench", "wb-score", "adjusted_score"),
    _one("arena-hard", "Arena-Hard v0.1", "LMArena", "hard prompts, a judge model",
         "Arena-Hard", "v0.1", "score"),
)  # fmt: skip
_CODE = (
    _one("aider-polyglot", "Aider polyglot", "Aider", "edits in six languages until tests pass",
         "Aider", "polyglot_leaderboard", "pass_rate_2"),
    _one("aider-edit", "Aider edit", "Aider", "edits in Python until tests pass",
         "Aider", "edit_leaderboard", "pass_rate_2"),
    _one("aider-refactor", "Aider refactor", "Aider", "moves code within long files",
         "Aider", "refactor_leaderboard", "pass_rate_1"),
    _one("evalplus", "EvalPlus", "EvalPlus", "functions in Python, with many more tests",
         "EvalPlus", "pass@1", "humaneval+", "mbpp+"),
    _one("crux", "CRUX", "ZeroEval", "says what a program prints", "ZeroEval", "crux", "Acc"),
)  # fmt: skip
_TOOLS = (
    _one("bfcl", "BFCL v4", "Berkeley", "calls functions: simple, parallel, in turns, searching",
         "BFCL", "v4 overall", "Overall Acc"),
    _one("tau2", "tau2-bench", "Sierra", "serves a simulated customer with tools and rules",
         "tau2-bench", "text", "airline/pass_1", "retail/pass_1", "telecom/pass_1",
         "banking_knowledge/pass_1"),
)  # fmt: skip
_REASONING = (
    _one("zebra", "ZebraLogic", "ZeroEval", "logic puzzles", "ZeroEval", "zebra-grid",
         "Puzzle Acc"),
    _one("math", "MATH level 5", "ZeroEval", "competition mathematics", "ZeroEval", "math-l5",
         "Acc"),
    _one("gsm", "GSM8K", "ZeroEval", "arithmetic in words", "ZeroEval", "gsm", "Acc"),
    _one("mmlu", "MMLU-Redux", "ZeroEval", "knowledge of 57 subjects", "ZeroEval", "mmlu-redux",
         "Acc"),
)  # fmt: skip
_EMBEDDINGS = (
    _mteb("retrieval", "retrieval", "finds passages that answer",
          "ArguAna CQADupstackGamingRetrieval CQADupstackUnixRetrieval ClimateFEVERHardNegatives "
          "FEVERHardNegatives FiQA2018 HotpotQAHardNegatives NFCorpus SCIDOCS SciFact TRECCOVID "
          "Touche2020Retrieval.v3"),
    _mteb("similarity", "similarity", "grades how alike two sentences are",
          "BIOSSES SICK-R STS12 STS13 STS14 STS15 STS17 STS22.v2 STSBenchmark"),
    _mteb("classification", "classification", "sorts texts into classes",
          "AmazonCounterfactualClassification Banking77Classification ImdbClassification "
          "MTOPDomainClassification MassiveIntentClassification MassiveScenarioClassification "
          "ToxicConversationsClassification TweetSentimentExtractionClassification"),
    _mteb("clustering", "clustering", "groups texts by subject",
          "ArXivHierarchicalClusteringP2P ArXivHierarchicalClusteringS2S BiorxivClusteringP2P.v2 "
          "MedrxivClusteringP2P.v2 MedrxivClusteringS2S.v2 StackExchangeClustering.v2 "
          "StackExchangeClusteringP2P.v2 TwentyNewsgroupsClustering.v2"),
    _mteb("pairs", "pairs and reranking", "tells duplicates, orders candidates",
          "AskUbuntuDupQuestions MindSmallReranking SprintDuplicateQuestions TwitterSemEval2015 "
          "TwitterURLCorpus"),
)  # fmt: skip
_SPEECH = (
    _one("asr-short", "Open ASR English", "Hugging Face", "word errors on short recordings",
         "Open ASR", "en_shortform", "Avg. WER"),
    _one("asr-long", "Open ASR long", "Hugging Face", "word errors on long recordings",
         "Open ASR", "en_longform", "Average"),
    _one("asr-languages", "Open ASR multilingual", "Hugging Face",
         "word errors in German, French, Italian, Spanish and Portuguese",
         "Open ASR", "multilingual", "Avg"),
)  # fmt: skip
_VISION = (
    _one("lmarena-vision", "LMArena vision", "LMArena", "votes of people on answers about images",
         "LMArena", "vision", "arena_score"),
)  # fmt: skip
_FACTUALITY = (
    _one("vectara", "Vectara HHEM", "Vectara", "invents facts when it summarises a text",
         "Vectara HHEM", "leaderboard", "Hallucination Rate"),
)  # fmt: skip

TASKS = (
    Task("chat", "Chat", _CHAT),
    Task("code", "Code", _CODE),
    Task("tools", "Tools and agents", _TOOLS),
    Task("reasoning", "Reasoning", _REASONING),
    Task("embeddings", "Embeddings", _EMBEDDINGS),
    Task("speech", "Speech", _SPEECH),
    Task("vision", "Vision", _VISION),
    Task("factuality", "Factuality", _FACTUALITY),
)


def find(key: str) -> Task:
    """The task of that key or title. NotFound with the keys there are."""
    asked = key.strip().lower()
    for task in TASKS:
        if asked in (task.key, task.title.lower()):
            return task
    keys = ", ".join(task.key for task in TASKS)
    raise NotFound(f"There is no task {key!r}.", remedy=f"There are: {keys}.")
