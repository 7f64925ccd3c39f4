"""Ingestion and questions at a million requests: `bud bench metrics [--json]`."""

from __future__ import annotations

import json as json_module
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from core.metrics import ingest, segments, store
from core.metrics.schemas import Filters, Scope, StoredFact, Window
from core.prices.schemas import THIS_MACHINE, PriceSpan

ROWS = 1_000_000
_ROWS_A_SEGMENT = 20_000
_ASKED = 5
_END = datetime(2026, 11, 1, tzinfo=UTC)
_MONTH = Window(start=_END - timedelta(days=30), end=_END)


def run(json: bool = False, rows: int = ROWS) -> dict[str, Any]:
    """Measure on a throw-away data folder; prints the figures and gives them back."""
    folder = Path(tempfile.mkdtemp(prefix="bud-bench-"))
    try:
        figures = _measure(folder, rows)
    finally:
        shutil.rmtree(folder)
    if json:
        print(json_module.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:>12,}")
    return figures


def _measure(folder: Path, rows: int) -> dict[str, Any]:
    opened = ingest.open_store(folder)
    spent_s = 0.0
    for first in range(0, rows, _ROWS_A_SEGMENT):
        facts = [_fact(number, rows) for number in range(first, min(first + _ROWS_A_SEGMENT, rows))]
        segments.write(folder, f"seg-{first:08}", facts)
        started_s = time.perf_counter()
        ingest.ingest_once(opened, folder)
        spent_s += time.perf_counter() - started_s
    figures: dict[str, Any] = {"rows": rows, "ingest_rows_per_s": round(rows / spent_s)}
    figures |= {f"{name}_p50_ms": _p50_ms(ask) for name, ask in _questions(opened).items()}
    segments.write(folder, "seg-last", [_fact(rows - 1, rows)])
    started_s = time.perf_counter()
    ingest.ingest_once(opened, folder)
    figures["one_fact_ingest_ms"] = round((time.perf_counter() - started_s) * 1000, 1)
    opened.close()
    figures["file_bytes"] = (folder / ingest.FILE_NAME).stat().st_size
    return figures


def _questions(opened: store.MetricsStore) -> dict[str, Callable[[], object]]:
    spans = [
        PriceSpan(cluster_id=THIS_MACHINE, start_unix_s=0.0, end_unix_s=5e9, usd_per_hour=0.12)
    ]
    month = Scope(project_id="prj_bench", window=_MONTH)
    costed = month.model_copy(update={"prices": spans})
    hour = month.model_copy(
        update={"window": Window(start=_END - timedelta(hours=1), end=_END), "prices": spans}
    )
    one_model = month.model_copy(update={"filters": Filters(model="model-1")})
    models = [f"model-{number}" for number in range(5)]
    return {
        "summary_30d": lambda: opened.summary(month),
        "summary_30d_with_cost": lambda: opened.summary(costed),
        "summary_1h_with_cost": lambda: opened.summary(hour),
        "summary_30d_one_model": lambda: opened.summary(one_model),
        "series_30d_by_model": lambda: opened.series(month, "model", 21600, models),
        "series_30d_by_model_with_cost": lambda: opened.series(costed, "model", 21600, models),
        "top_keys_30d": lambda: opened.groups(month, "key", 20),
        "errors_30d": lambda: opened.errors(month),
        "newest_100": lambda: opened.requests(costed, 100),
    }


def _p50_ms(ask: Callable[[], object]) -> float:
    times_ms = []
    for _ in range(_ASKED):
        started_s = time.perf_counter()
        ask()
        times_ms.append((time.perf_counter() - started_s) * 1000)
    return round(statistics.median(times_ms), 1)


def _fact(number: int, rows: int) -> StoredFact:
    chance = random.Random(number)  # seeded by the row: the same data in each run
    failed = chance.random() < 0.02
    ttft_ms = chance.lognormvariate(5, 0.5)
    return StoredFact(
        request_id=f"req_{number:026}",
        started_unix_s=_MONTH.start.timestamp() + _MONTH.seconds * number / rows,
        endpoint="/v1/chat/completions",
        model=f"model-{number % 5}",
        project_id="prj_bench",
        deployment_id=f"dep_{number % 5}",
        replica_id=f"rep_{number % 10}",
        key_id=f"key_{number % 20}",
        user_id=f"usr_{number % 20}",
        stream=number % 2 == 0,
        status=502 if failed else 200,
        error_class="upstream_error" if failed else "",
        input_tokens=chance.randrange(20, 2000),
        output_tokens=None if failed else chance.randrange(10, 500),
        ttft_ms=None if failed else ttft_ms,
        duration_ms=ttft_ms + chance.lognormvariate(7, 0.7),
        attempts=1,
    )


if __name__ == "__main__":
    run()
