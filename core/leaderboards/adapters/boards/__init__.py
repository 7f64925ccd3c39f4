"""One file a board: how its public files are read."""

from core.leaderboards.adapters.boards import (
    aider,
    alpaca_eval,
    arena_hard,
    bfcl,
    evalplus,
    llm_stats,
    lmarena,
    mteb,
    open_asr,
    tau2,
    vectara,
    wildbench,
    zeroeval,
)
from core.leaderboards.adapters.boards.rows import Read, Row, Source

BOARDS: dict[str, Source] = {
    "Aider": aider.SOURCE,
    "AlpacaEval": alpaca_eval.SOURCE,
    "Arena-Hard": arena_hard.SOURCE,
    "BFCL": bfcl.SOURCE,
    "EvalPlus": evalplus.SOURCE,
    "LMArena": lmarena.SOURCE,
    "MTEB": mteb.SOURCE,
    "Open ASR": open_asr.SOURCE,
    "Vectara HHEM": vectara.SOURCE,
    "WildBench": wildbench.SOURCE,
    "ZeroEval": zeroeval.SOURCE,
    "llm-stats": llm_stats.SOURCE,
    "tau2-bench": tau2.SOURCE,
}

__all__ = ["BOARDS", "Read", "Row", "Source"]
