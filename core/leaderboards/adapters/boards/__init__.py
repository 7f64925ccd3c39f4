"""One file a board: how its public files are read.

MTEB (thousands of files) and llm-stats (what vendors report) have no connector: their shipped
figures stay until a new version of Bud.
"""

from core.leaderboards.adapters.boards import (
    aider,
    alpaca_eval,
    arena_hard,
    bfcl,
    evalplus,
    lmarena,
    open_asr,
    tau2,
    vectara,
    wildbench,
    zeroeval,
)
from core.leaderboards.adapters.boards.rows import Row, Source

BOARDS: dict[str, Source] = {
    "Aider": aider.SOURCE,
    "AlpacaEval": alpaca_eval.SOURCE,
    "Arena-Hard": arena_hard.SOURCE,
    "BFCL": bfcl.SOURCE,
    "EvalPlus": evalplus.SOURCE,
    "LMArena": lmarena.SOURCE,
    "Open ASR": open_asr.SOURCE,
    "Vectara HHEM": vectara.SOURCE,
    "WildBench": wildbench.SOURCE,
    "ZeroEval": zeroeval.SOURCE,
    "tau2-bench": tau2.SOURCE,
}

__all__ = ["BOARDS", "Row", "Source"]
