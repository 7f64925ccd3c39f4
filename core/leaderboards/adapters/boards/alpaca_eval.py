"""AlpacaEval: one CSV file a version, with the model in the column without a name."""

from __future__ import annotations

from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, csv_rows, figures

_FILES = {
    "AlpacaEval 2.0 (weighted gpt4-turbo)": "data_AlpacaEval_2/"
    "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv",
    "AlpacaEval 1.0 (gpt4)": "data_AlpacaEval/alpaca_eval_gpt4_leaderboard.csv",
}
_METRICS = frozenset(
    ("win_rate", "length_controlled_winrate", "avg_length", "standard_error", "n_total")
)


def _rows(read: Read) -> Iterator[Row]:
    for variant, path in _FILES.items():
        for record in csv_rows(read(f"src/alpaca_eval/leaderboards/{path}"), "win_rate"):
            yield from figures(record, variant, record[""], set(record) - _METRICS)


SOURCE = Source("tatsu-lab/alpaca_eval", "main", _rows)
