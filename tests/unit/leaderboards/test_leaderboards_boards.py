"""The connectors of boards, on files written from their public formats."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from core.kernel.errors import UpstreamFailed
from core.leaderboards import refresh, scores
from core.leaderboards.adapters.boards import BOARDS, Row

_BFCL = """\ufeffRank,Overall Acc,Model,Model Link,Total Cost ($),Latency Mean (s),Organization
1,77.47%,Claude-Opus-4-5-20251101 (FC),https://www.anthropic.com,86.55,4.38,Anthropic
2,42.57%,Qwen3-8B (FC),https://huggingface.co/Qwen/Qwen3-8B,N/A,2.1,Qwen
"""
_AIDER = """
- dirname: 2025-01-25--deepseek-r1
  test_cases: 225
  model: deepseek/deepseek-reasoner
  pass_rate_1: 30.7
  pass_rate_2: 59.1
  percent_cases_well_formed: 100.0
  command: aider --model r1
  date: 2025-01-25
  seconds_per_case: 949.4
  total_cost: 6.3330
"""
_ALPACA = """,win_rate,standard_error,n_wins,n_total,mode,avg_length,length_controlled_winrate
gpt-4o-2024-05-13,51.33,1.47,429,805,minimal,1873,57.46
"""
_EVALPLUS = {
    "claude-2 (Mar 2024)": {
        "link": "https://www.anthropic.com/index/claude-2",
        "open-data": "NONE",
        "pass@1": {"humaneval": 69.5, "humaneval+": 61.6, "mbpp": None, "mbpp+": None},
        "prompted": True,
        "size": None,
    }
}
_LMARENA = """rank,rank_stylectrl,model,arena_score,95_pct_ci,votes,organization,license,url
1,1,Gemini-2.5-Pro,1470,+5/-5,26019,Google,Proprietary,https://aistudio.google.com
"""
_VECTARA = """# Hallucination Leaderboard
Last updated on September 22, 2026

|Model|Hallucination Rate|Factual Consistency Rate|Answer Rate|Average Summary Length (Words)|
|----|----:|----:|----:|----:|
|microsoft/Phi-4|3.7 %|96.3 %|80.7 %|120.9|

|Other|table|
"""
_TAU2 = {
    "model_name": "Gemini 3 Flash",
    "model_organization": "Google",
    "submission_date": "2026-03-02",
    "submission_type": "standard",
    "results": {
        "airline": {"pass_1": 82.5, "pass_4": 68.0, "cost": 0.03, "duration_seconds": 96.3},
        "retail": None,
    },
}
_ASR_SHORT = "model,RTFx,Avg. WER,AMI WER\nelevenlabs/scribe_v2,-1,4.1,7.2\n"
_ASR_LONG = "model_id,Average,RTFx,earnings21\nelevenlabs/scribe_v2,7.315,-1,6.48\n"
_ASR_MANY = "model,RTFx,de_fleurs,Avg\nopenai/whisper-large-v3,110.92,3.27,4.81\n"
_WILD = {
    "Athene-70B": {
        "model": "Athene-70B",
        "score": 7.97,
        "adjusted_score": 5.94,
        "task_categorized_scores": {"Creative Tasks": 6.1},
        "total": 1024,
    }
}
_ARENA = 'model,score,rating_q025,CI,avg_tokens\ngpt-4-turbo,82.63,80.46,"(-2.17, +1.91)",662.0\n'
_ZEBRA = [{"Model": "deepseek-R1", "Mode": "greedy", "Puzzle Acc": "78.7", "Cell Acc": "80.5"}]
_ZERO = [{"Model": "deepseek-R1", "Mode": "greedy", "Acc": "78.7", "No answer": "0.0"}]

# As `scripts/generate_cached_results.py` of embeddings-benchmark/results writes it.
_MTEB = pd.DataFrame(
    [
        ("baai/bge-m3", "5617a9f61b028005", None, "STS17", "2025-01-02", "test", "en-en", 0.82),
        ("baai/bge-m3", "0000000000000000", None, "STS17", "2024-01-02", "test", "en-en", 0.10),
        ("baai/bge-m3", "external", None, "STS17", "2026-01-02", "test", "en-en", 0.99),
        ("baai/bge-m3", "5617a9f61b028005", None, "STS17", "2025-01-02", "test", "ko-ko", 0.83),
        ("baai/bge-m3", "5617a9f61b028005", "dim=9", "STS12", "2025-01-02", "test", "default", 0.7),
        ("a/card-only", "external", None, "STS12", None, "test", "default", 0.78),
        ("a/card-only", "external", None, "STS12", None, "validation", "default", 0.79),
    ],
    columns=["model_name", "model_revision", "experiment_name", "task_name", "date", "split",
             "hf_subset", "main_score"],
)  # fmt: skip
# A row of its `benchmarks.json`, with the fields that it had when it was given up.
_LLM_STATS = [
    {
        "benchmark_id": "gpqa",
        "benchmark_name": "GPQA",
        "score": 0.409,
        "normalized_score": 0.409,
        "is_self_reported": True,
        "self_reported_source_link": "https://ai.google.dev/gemma/docs/core/model_card_3",
        "verified_by_llmstats": False,
        "analysis_method": "0-shot evaluation diamond",
        "created_at": "2025-07-19T19:56:13.000000+00:00",
    },
    {"benchmark_id": "mmlu", "benchmark_name": "MMLU", "score": None},
]


def _parquet(table: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    table.assign(date=pd.to_datetime(table["date"], utc=True)).to_parquet(file, index=False)
    return file.getvalue()


FILES: dict[str, dict[str, str | bytes]] = {
    "MTEB": {"__cached_results.parquet": _parquet(_MTEB)},
    "llm-stats": {
        "data/organizations/google/models/gemma-3-12b-it/model.json": "{}",
        "data/organizations/google/models/gemma-3-12b-it/benchmarks.json": json.dumps(_LLM_STATS),
    },
    "BFCL": {"data_overall.csv": _BFCL},
    "Aider": {
        f"aider/website/_data/{page}.yml": _AIDER
        for page in (
            *("polyglot_leaderboard", "edit_leaderboard", "refactor_leaderboard", "architect"),
            *("o1_polyglot_leaderboard", "quant", "qwen3_leaderboard", "r1_architect"),
        )
    },
    "AlpacaEval": {
        "src/alpaca_eval/leaderboards/data_AlpacaEval_2/"
        "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv": _ALPACA,
        "src/alpaca_eval/leaderboards/data_AlpacaEval/alpaca_eval_gpt4_leaderboard.csv": _ALPACA,
    },
    "EvalPlus": {"results.json": json.dumps(_EVALPLUS)},
    "LMArena": {f"csv/lmarena_{kind}.csv": _LMARENA for kind in ("text", "vision", "image")},
    "Vectara HHEM": {"README.md": _VECTARA},
    "tau2-bench": {
        "web/leaderboard/public/submissions/manifest.json": '{"submissions": ["gemini"]}',
        "web/leaderboard/public/submissions/gemini/submission.json": json.dumps(_TAU2),
    },
    "Open ASR": {
        "scripts/data/en_shortform.csv": _ASR_SHORT,
        "scripts/data/en_longform.csv": _ASR_LONG,
        "scripts/data/multilingual.csv": _ASR_MANY,
    },
    "WildBench": {"leaderboard/data_dir/score.json": json.dumps(_WILD)},
    "Arena-Hard": {"leaderboard/arena_hard_leaderboard_20240731.csv": _ARENA},
    "ZeroEval": {
        f"result_dirs/{task}.summary.json": json.dumps(_ZEBRA if task == "zebra-grid" else _ZERO)
        for task in ("zebra-grid", "mmlu-redux", "gsm", "math-l5", "crux", "numersense-v2")
    },
}
# One figure of each: variant, metric, published name, score.
EXPECTED = {
    "MTEB": ("STS17/test", "main_score", "baai/bge-m3", 0.82),
    "llm-stats": ("GPQA", "0-shot evaluation diamond", "gemma-3-12b-it", 0.409),
    "BFCL": ("v4 overall", "Overall Acc", "Qwen3-8B (FC)", 42.57),
    "Aider": ("polyglot_leaderboard", "pass_rate_2", "deepseek/deepseek-reasoner", 59.1),
    "AlpacaEval": (
        *("AlpacaEval 2.0 (weighted gpt4-turbo)", "length_controlled_winrate"),
        *("gpt-4o-2024-05-13", 57.46),
    ),
    "EvalPlus": ("pass@1", "humaneval+", "claude-2 (Mar 2024)", 61.6),
    "LMArena": ("text", "arena_score", "Gemini-2.5-Pro", 1470.0),
    "Vectara HHEM": ("leaderboard", "Hallucination Rate", "microsoft/Phi-4", 3.7),
    "tau2-bench": ("text", "airline/pass_1", "Gemini 3 Flash", 82.5),
    "Open ASR": ("multilingual", "Avg", "openai/whisper-large-v3", 4.81),
    "WildBench": ("wb-score", "adjusted_score", "Athene-70B", 5.94),
    "Arena-Hard": ("v0.1", "score", "gpt-4-turbo", 82.63),
    "ZeroEval": ("zebra-grid", "Puzzle Acc", "deepseek-R1", 78.7),
}


class _Files:
    """A board's files, as its repository gives them."""

    def __init__(self, files: dict[str, str | bytes]) -> None:
        self._files = files

    def __call__(self, path: str) -> str:
        text = self._files[path]
        assert isinstance(text, str)
        return text.removeprefix("\ufeff")

    def data(self, path: str) -> bytes:
        content = self._files[path]
        assert isinstance(content, bytes)
        return content

    def paths(self, folder: str) -> list[str]:
        return [path for path in self._files if path.startswith(f"{folder}/")]


def _read(board: str) -> list[Row]:
    return list(BOARDS[board].rows(_Files(FILES[board])))


@pytest.mark.parametrize("board", BOARDS)
def test_a_board_is_read_in_the_words_of_the_metric_catalogue(board: str) -> None:
    rows = _read(board)
    found = {(each.variant, each.metric, each.published_name, each.score) for each in rows}
    assert EXPECTED[board] in found
    known = scores.metrics()
    known = known[known["board"] == board]
    names = set(zip(known["variant"], known["metric"], strict=True))
    headlines = known[known["headline"].eq(True)]
    headline = set(zip(headlines["variant"], headlines["metric"], strict=True))
    read = {(each.variant, each.metric) for each in rows}
    # What vendors report is ranked by nothing.
    assert read & headline or (board == "llm-stats" and not headline)
    # What the catalogue does not name is dropped; most of a file must be known.
    assert len(read & names) >= 0.6 * len(read)


def test_what_is_no_figure_is_left_out() -> None:
    assert {each.metric for each in _read("BFCL") if each.published_name.startswith("Qwen")} == {
        "Overall Acc",
        "Latency Mean (s)",
    }
    assert all(each.score >= 0 for each in _read("Open ASR"))
    assert {each.metric for each in _read("tau2-bench")} == {
        "airline/pass_1",
        "airline/pass_4",
        "airline/cost",
    }
    assert {each.date for each in _read("Aider")} == {"2025-01-25"}
    assert len(_read("llm-stats")) == 1


def test_what_vendors_report_is_marked_and_never_stands_before_what_was_measured() -> None:
    found = {each.published_name: each for each in _read("MTEB")}
    assert {name: each.is_self_reported for name, each in found.items()} == {
        "baai/bge-m3": False,
        "a/card-only": True,
    }
    made = refresh.frame("MTEB", found.values(), "x/y@abc (2026-11-20)", "2026-11-20")
    assert sorted(made["source"]) == [
        "x/y@abc (2026-11-20) rev=5617a9f6",
        "x/y@abc (2026-11-20) rev=external",
    ]
    (report,) = _read("llm-stats")
    assert (report.is_self_reported, report.date, report.organisation) == (
        *(True, "2025-07-19"),
        "google",
    )


@pytest.mark.parametrize(
    ("board", "text"),
    [
        ("BFCL", "Rank,Accuracy,Model\n1,2,x\n"),
        ("Vectara HHEM", "# Moved"),
        ("tau2-bench", "{}"),
        ("WildBench", "[]"),
        ("ZeroEval", "{}"),
        ("llm-stats", ""),
    ],
)
def test_a_changed_format_is_refused_by_name(board: str, text: str) -> None:
    paths = [path for path in FILES[board] if not path.startswith("data/organizations")]
    with pytest.raises(UpstreamFailed, match="format has changed"):
        list(BOARDS[board].rows(_Files(dict.fromkeys(paths, text))))


def test_a_changed_table_is_refused_by_its_column() -> None:
    files = _Files({"__cached_results.parquet": _parquet(_MTEB.drop(columns="split"))})
    with pytest.raises(UpstreamFailed, match="'split'"):
        list(BOARDS["MTEB"].rows(files))
