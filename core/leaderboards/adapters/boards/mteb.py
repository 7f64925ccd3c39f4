"""MTEB: one Parquet file of every result, which its repository makes of its thousands of files.

It is the file of MTEB's own leaderboard; its columns are those of `_PARQUET_SCHEMA` in
`scripts/generate_cached_results.py` of embeddings-benchmark/results.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

from core.leaderboards.adapters.boards.rows import Read, Row, Source, format_changed

_FILE = "__cached_results.parquet"
_COLUMNS = ["model_name", "model_revision", "experiment_name", "task_name", "date", "split",
            "hf_subset", "main_score"]  # fmt: skip
# The English part of a task, as MTEB(eng, v2) counts it; `en-ext` is data of another kind.
_ENGLISH = ["default", "en", "en-en"]
# The revision of what was read from a model's card, and not measured by MTEB.
_FROM_CARDS = "external"


def _rows(read: Read) -> Iterator[Row]:
    import pyarrow.parquet as pq

    content = io.BytesIO(read.data(_FILE))
    if missing := sorted(set(_COLUMNS) - set(pq.read_schema(content).names)):
        raise format_changed(f"column {missing[0]!r}")
    wanted = [("split", "==", "test"), ("hf_subset", "in", _ENGLISH)]
    table = pq.read_table(content, columns=_COLUMNS, filters=wanted).to_pandas()
    # An experiment is the model with other options, such as fewer dimensions.
    table = table[table["experiment_name"].isna() & table["main_score"].notna()]
    table["is_from_card"] = table["model_revision"] == _FROM_CARDS
    # Of several revisions what MTEB measured stands before cards, and the newest run first.
    table = table.sort_values("date", ascending=False, na_position="last", kind="stable")
    table = table.sort_values("is_from_card", kind="stable")
    for record in table.drop_duplicates(["model_name", "task_name"]).itertuples():
        revision = str(record.model_revision or "")
        yield Row(
            f"{record.task_name}/test",
            "main_score",
            record.model_name,
            float(record.main_score),
            revision=revision if record.is_from_card else revision[:8],
            is_self_reported=bool(record.is_from_card),
        )


SOURCE = Source("embeddings-benchmark/results", "cached-data", _rows)
