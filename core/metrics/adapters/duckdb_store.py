"""The embedded metrics store: one DuckDB file, written by one process.

Moments are Unix seconds in DOUBLE columns, so that buckets are plain arithmetic. Statements are
put together from constants of this file only; every value is a parameter.
"""

# ruff: noqa: S608 (statements are joined from this file's constants; values are parameters)

from __future__ import annotations

import math
import threading
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from core.contracts.request_fact import CALLER_LEFT, REFUSED
from core.kernel import clock
from core.kernel.errors import Unavailable
from core.metrics.schemas import (
    CacheNumbers,
    ErrorCount,
    ErrorPoint,
    Filters,
    GroupBy,
    GroupNumbers,
    GuardrailCount,
    MachineTime,
    Numbers,
    Percentiles,
    RequestRow,
    Scope,
    Segment,
    SeriesPoint,
    StoredFact,
    Window,
)
from core.prices.schemas import PriceSpan

FILE_NAME = "metrics.duckdb"

# What the dashboard may take from the models that share the machine.
_CONFIG: dict[str, Any] = {
    "threads": 2,
    "memory_limit": "512MB",
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
# A segment's file is deleted right after it was ingested; its id need not be known for ever.
_FORGET_SEGMENTS_AFTER_S = 7 * 86400.0

_SQL_TYPES = {str: "VARCHAR", float: "DOUBLE", int: "BIGINT", bool: "BOOLEAN"}
_GROUP_COLUMNS: dict[GroupBy, str] = {
    "none": "''",
    "model": "model",
    "deployment": "deployment_id",
    "key": "key_id",
}

_TABLES = """
CREATE TABLE IF NOT EXISTS segments (
    segment_id VARCHAR PRIMARY KEY, facts BIGINT, damaged_lines BIGINT, ingested_unix_s DOUBLE);
CREATE TABLE IF NOT EXISTS request_facts (segment_id VARCHAR, ended_unix_s DOUBLE);
CREATE TABLE IF NOT EXISTS machine_minutes (
    cluster_id VARCHAR, minute BIGINT, up_s DOUBLE DEFAULT 0, busy_s DOUBLE DEFAULT 0,
    request_s DOUBLE DEFAULT 0, PRIMARY KEY (cluster_id, minute));
"""

# Recomputes the minutes that new requests touch. `busy_s` is the time in which at least one
# request was worked on, `request_s` the time of all of them added up.
_BUSY_MINUTES = """
WITH touched AS (
    SELECT DISTINCT cluster_id, unnest(range(
        floor(started_unix_s / 60)::BIGINT, floor(ended_unix_s / 60)::BIGINT + 1)) AS minute
    FROM incoming WHERE replica_id <> ''
), bounds AS (
    SELECT min(minute) * 60.0 AS start_s, max(minute) * 60.0 + 60 AS end_s FROM touched
), spread AS (
    SELECT cluster_id, started_unix_s, ended_unix_s, unnest(range(
        floor(started_unix_s / 60)::BIGINT, floor(ended_unix_s / 60)::BIGINT + 1)) AS minute
    FROM request_facts
    WHERE replica_id <> '' AND ended_unix_s >= (SELECT start_s FROM bounds)
        AND started_unix_s < (SELECT end_s FROM bounds)
), pieces AS (
    SELECT cluster_id, minute, greatest(started_unix_s, minute * 60.0) AS start_s,
        least(ended_unix_s, minute * 60.0 + 60) AS end_s
    FROM spread SEMI JOIN touched USING (cluster_id, minute)
), ordered AS (
    SELECT *, max(end_s) OVER (PARTITION BY cluster_id, minute ORDER BY start_s
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS busy_until_s
    FROM pieces
)
INSERT INTO machine_minutes (cluster_id, minute, busy_s, request_s)
SELECT cluster_id, minute,
    sum(greatest(end_s - greatest(start_s, coalesce(busy_until_s, start_s)), 0)),
    sum(end_s - start_s)
FROM ordered GROUP BY cluster_id, minute
ON CONFLICT DO UPDATE SET busy_s = excluded.busy_s, request_s = excluded.request_s
"""

_REFUSED = ", ".join(f"'{each}'" for each in sorted(REFUSED))
_SCOPED = f"""
SELECT *, floor(started_unix_s / 60)::BIGINT AS first_minute,
    floor(ended_unix_s / 60)::BIGINT AS last_minute,
    CASE WHEN error_class = '' THEN 'ok' WHEN error_class = '{CALLER_LEFT}' THEN 'cancelled'
        WHEN error_class IN ({_REFUSED}) THEN 'refused' ELSE 'failed' END AS outcome
FROM request_facts
WHERE project_id = $project_id AND started_unix_s >= $start AND started_unix_s < $end
    AND ($model = '' OR model = $model)
    AND ($deployment_id = '' OR deployment_id = $deployment_id)
    AND ($key_id = '' OR key_id = $key_id)
    AND ($user_id = '' OR user_id = $user_id)
    AND ($request_id = '' OR request_id = $request_id)
    AND ($error_class = '' OR error_class = $error_class)
    AND ($traffic = 'all' OR (coalesce(shadow_of, '') <> '') = ($traffic = 'shadow'))
    AND ($outcome IN ('all', outcome) OR ($outcome = 'unanswered' AND outcome <> 'ok'))
"""

# The price of a minute is the one that holds at its end, so that a price counts at once.
_PRICED_MINUTES = """
prices AS (
    SELECT unnest($price_cluster) AS cluster_id, unnest($price_start) AS start_s,
        unnest($price_end) AS end_s, unnest($price_usd) AS usd_per_hour
), priced_minutes AS (
    SELECT m.*, p.usd_per_hour / 3600 AS usd_per_s,
        CASE WHEN m.request_s > 0 THEN m.busy_s / m.request_s ELSE 0 END AS share
    FROM machine_minutes m JOIN prices p ON p.cluster_id = m.cluster_id
        AND m.minute * 60 + 60 > p.start_s AND m.minute * 60 + 60 <= p.end_s
)
"""

# What each request without a price of its own takes of the busy time of its minutes, in USD.
# Nearly every request lies in one minute, or in two: only longer ones are spread out.
_MACHINE_COST = (
    _PRICED_MINUTES
    + """, timed AS (
    SELECT * FROM scoped WHERE cost_usd IS NULL AND replica_id <> ''
), pieces AS (
    SELECT *, first_minute AS minute FROM timed WHERE first_minute = last_minute
    UNION ALL
    SELECT *, unnest(range(first_minute, last_minute + 1)) AS minute
    FROM timed WHERE first_minute < last_minute
), machine_costs AS (
    SELECT pieces.*, (least(ended_unix_s, minute * 60.0 + 60)
        - greatest(started_unix_s, minute * 60.0)) * share * usd_per_s AS machine_usd
    FROM pieces JOIN priced_minutes USING (cluster_id, minute)
)
"""
)

_NUMBERS = """
    count(*) AS requests,
    count(*) FILTER (outcome = 'failed') AS errors,
    count(*) FILTER (outcome = 'refused') AS refused,
    count(*) FILTER (outcome = 'cancelled') AS cancelled,
    coalesce(sum(input_tokens), 0)::BIGINT AS input_tokens,
    coalesce(sum(output_tokens), 0)::BIGINT AS output_tokens,
    coalesce(sum(cached_tokens), 0)::BIGINT AS cached_tokens,
    quantile_cont(ttft_ms, [0.5, 0.95, 0.99]) FILTER (error_class = '') AS ttft,
    quantile_cont(duration_ms, [0.5, 0.95, 0.99]) FILTER (error_class = '') AS latency,
    quantile_cont((output_tokens - 1) / (duration_ms - ttft_ms) * 1000, 0.5) FILTER (
        stream AND error_class = '' AND output_tokens > 1 AND duration_ms > ttft_ms
    ) AS generation_tokens_per_s,
    sum(cost_usd) AS token_usd,
    count(*) FILTER (
        cost_usd IS NULL AND replica_id <> '' AND error_class = '') AS without_token_price
"""

_GUARDRAILS_FORM = '[{"rule": "VARCHAR", "side": "VARCHAR", "outcome": "VARCHAR", "ms": "DOUBLE"}]'

_ROW = """
    request_id, started_unix_s, endpoint, model, deployment_id, replica_id, key_id, user_id,
    stream, status, error_class, error_message, coalesce(blocked_by, '') AS blocked_by,
    coalesce(answered_by, '') AS answered_by, coalesce(guardrails, '') AS guardrails,
    coalesce(cache, '') AS cache, coalesce(hedge, '') AS hedge,
    coalesce(shadow_of, '') AS shadow_of,
    input_tokens, output_tokens, cached_tokens, connect_ms, ttft_ms, duration_ms, attempts, cost_usd
"""


class DuckDbStore:
    """Request facts in `metrics.duckdb`; safe to use from several threads of one process."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Unavailable when another process has it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._connection = duckdb.connect(str(path), config=_CONFIG)
        except duckdb.IOException as error:
            raise Unavailable(
                "The metrics file is in use by another process, or cannot be written.",
                value=path,
                remedy="Stop the other Bud on this data folder, or try again in a moment.",
            ) from error
        self._columns = {
            field.name: _sql_type(field.type) for field in msgspec.structs.fields(StoredFact)
        }
        self._writing = threading.Lock()
        self._connecting = threading.Lock()
        self._prepare()

    def _prepare(self) -> None:
        cursor = self._cursor()
        for statement in _TABLES.strip().split(";\n"):
            cursor.execute(statement)
        for name, sql_type in self._columns.items():
            cursor.execute(f"ALTER TABLE request_facts ADD COLUMN IF NOT EXISTS {name} {sql_type}")
        cursor.execute(
            "DELETE FROM segments WHERE ingested_unix_s < ?",
            [clock.unix_s() - _FORGET_SEGMENTS_AFTER_S],
        )

    def close(self) -> None:
        """Write everything into the file and give it free."""
        with self._writing, self._connecting:
            self._connection.close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        with self._connecting:
            return self._connection.cursor()

    # --- writing ---------------------------------------------------------------------------

    def known_segments(self, segment_ids: Sequence[str]) -> dict[str, int]:
        """Which of these are ingested already, with their number of damaged lines."""
        found = self._cursor().execute(
            "SELECT segment_id, damaged_lines FROM segments WHERE segment_id IN "
            "(SELECT unnest($ids::VARCHAR[]))",
            {"ids": list(segment_ids)},
        )
        return dict(found.fetchall())

    def add_segments(self, segments: Sequence[Segment]) -> int:
        """Add the rows and ids of several segments in one transaction; the number of rows."""
        incoming = self._table(segments)
        names = ", ".join(["segment_id", "ended_unix_s", *self._columns])
        now = clock.unix_s()
        with self._writing:
            cursor = self._cursor()
            cursor.register("incoming", incoming)
            cursor.execute("BEGIN")
            try:
                cursor.executemany(
                    "INSERT INTO segments VALUES (?, ?, ?, ?)",
                    [[item.id, len(item.facts), item.damaged_lines, now] for item in segments],
                )
                cursor.execute(f"INSERT INTO request_facts ({names}) SELECT {names} FROM incoming")
                cursor.execute(_BUSY_MINUTES)
                cursor.execute("COMMIT")
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            finally:
                cursor.unregister("incoming")
        return int(incoming.num_rows)

    def _table(self, segments: Sequence[Segment]) -> Any:
        # Imported here: 0.15 s that a process which only reads does not need.
        import pyarrow as pa

        facts = [fact for segment in segments for fact in segment.facts]
        ids = [segment.id for segment in segments for _ in segment.facts]
        rows = [msgspec.structs.astuple(fact) for fact in facts]
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(self._columns)
        arrow_types = {
            "VARCHAR": pa.string(),
            "DOUBLE": pa.float64(),
            "BIGINT": pa.int64(),
            "BOOLEAN": pa.bool_(),
        }
        arrays = {
            name: pa.array(values, arrow_types[sql_type])
            for (name, sql_type), values in zip(self._columns.items(), columns, strict=True)
        }
        ended = [fact.started_unix_s + fact.duration_ms / 1000 for fact in facts]
        return pa.table(
            {
                "segment_id": pa.array(ids, pa.string()),
                "ended_unix_s": pa.array(ended, pa.float64()),
                **arrays,
            }
        )

    def add_uptime(self, cluster_id: str, seconds_by_minute: Mapping[int, float]) -> None:
        """Add seconds of uptime to minutes (given as Unix time by 60)."""
        with self._writing:
            self._cursor().executemany(
                "INSERT INTO machine_minutes (cluster_id, minute, up_s) VALUES (?, ?, ?) "
                "ON CONFLICT DO UPDATE SET up_s = least(machine_minutes.up_s + excluded.up_s, 60)",
                [[cluster_id, minute, seconds] for minute, seconds in seconds_by_minute.items()],
            )

    def forget_project(self, project_id: str) -> int:
        """Delete the requests of a project; how many there were.

        The busy time of a machine stays: it did work then. That of one which nothing is known
        of any more (demo data has such a one) goes too.
        """
        with self._writing:
            cursor = self._cursor()
            deleted = cursor.execute(
                "DELETE FROM request_facts WHERE project_id = ?", [project_id]
            ).fetchone()
            cursor.execute(
                "DELETE FROM machine_minutes WHERE cluster_id IN (SELECT cluster_id FROM "
                "machine_minutes GROUP BY cluster_id HAVING sum(up_s) = 0) AND cluster_id NOT IN "
                "(SELECT DISTINCT cluster_id FROM request_facts)"
            )
        return int(deleted[0]) if deleted else 0

    def prune(self, before_unix_s: float) -> int:
        """Delete the requests that ended, and the minutes that were over, before a moment."""
        with self._writing:
            cursor = self._cursor()
            cursor.execute("BEGIN")
            try:
                deleted = cursor.execute(
                    "DELETE FROM request_facts WHERE ended_unix_s < ?", [before_unix_s]
                ).fetchone()
                cursor.execute(
                    "DELETE FROM machine_minutes WHERE minute * 60 + 60 <= ?", [before_unix_s]
                )
                cursor.execute("COMMIT")
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            # What was deleted takes disk space until new rows can be written over it.
            cursor.execute("CHECKPOINT")
        return int(deleted[0]) if deleted else 0

    # --- questions -------------------------------------------------------------------------

    def summary(self, scope: Scope) -> Numbers:
        """The numbers of the whole window."""
        found = self._numbers(scope, "''", "0", {})
        return Numbers(**_numbers(found[0])) if found else Numbers()

    def series(
        self, scope: Scope, group_by: GroupBy, bucket_s: int, groups: list[str]
    ) -> list[SeriesPoint]:
        """The numbers by time bucket and group; groups not in `groups` come as "other"."""
        column = _GROUP_COLUMNS[group_by]
        known = f"{column} IN (SELECT unnest($groups::VARCHAR[]))"
        group = f"CASE WHEN {known} THEN {column} ELSE 'other' END"
        bucket = "floor(started_unix_s / $bucket_s) * $bucket_s"
        found = self._numbers(scope, group, bucket, {"groups": groups, "bucket_s": bucket_s})
        return [
            SeriesPoint(at=_moment(row["bucket"]), group=row["grp"], **_numbers(row))
            for row in found
        ]

    def groups(self, scope: Scope, group_by: GroupBy, limit: int) -> list[GroupNumbers]:
        """The groups with the most requests; `label` is the model name last seen."""
        found = self._numbers(scope, _GROUP_COLUMNS[group_by], "0", {})
        found.sort(key=lambda row: (-row["requests"], row["grp"]))
        return [
            GroupNumbers(
                group=row["grp"],
                label=row["last_model"],
                last_at=_moment(row["last_unix_s"]),
                **_numbers(row),
            )
            for row in found[:limit]
        ]

    def _numbers(
        self, scope: Scope, group: str, bucket: str, extra: dict[str, Any]
    ) -> list[dict[str, Any]]:
        statement = f"""
            WITH scoped AS ({_SCOPED}), totals AS (
                SELECT {group} AS grp, {bucket} AS bucket, {_NUMBERS},
                    max(started_unix_s) AS last_unix_s,
                    arg_max(model, started_unix_s) AS last_model
                FROM scoped GROUP BY 1, 2)
        """
        if scope.prices:
            statement += f""", {_MACHINE_COST}, machine_totals AS (
                SELECT {group} AS grp, {bucket} AS bucket, sum(machine_usd) AS machine_usd,
                    count(*) FILTER (minute = first_minute AND error_class = '')
                        AS with_machine_price
                FROM machine_costs GROUP BY 1, 2)
                SELECT * FROM totals LEFT JOIN machine_totals USING (grp, bucket)"""
        else:
            statement += " SELECT *, NULL AS machine_usd, 0 AS with_machine_price FROM totals"
        return self._query(statement, _parameters(scope) | extra)

    def errors(self, scope: Scope) -> list[ErrorCount]:
        """Errors by class, the most frequent first."""
        statement = f"""
            WITH scoped AS ({_SCOPED})
            SELECT error_class, count(*) AS requests,
                arg_max(error_message, started_unix_s) AS last_message,
                max(started_unix_s) AS last_unix_s
            FROM scoped WHERE error_class <> '' GROUP BY 1 ORDER BY 2 DESC, 1
        """
        return [
            ErrorCount(last_at=_moment(row.pop("last_unix_s")), **row)
            for row in self._query(statement, _parameters(scope, with_prices=False))
        ]

    def errors_over_time(self, scope: Scope, bucket_s: int) -> list[ErrorPoint]:
        """Errors by time bucket and class; buckets without errors are left out."""
        statement = f"""
            WITH scoped AS ({_SCOPED})
            SELECT floor(started_unix_s / $bucket_s) * $bucket_s AS bucket, error_class,
                count(*) AS requests
            FROM scoped WHERE error_class <> '' GROUP BY 1, 2 ORDER BY 1, 2
        """
        found = self._query(
            statement, _parameters(scope, with_prices=False) | {"bucket_s": bucket_s}
        )
        return [ErrorPoint(at=_moment(row.pop("bucket")), **row) for row in found]

    def guardrails(self, scope: Scope) -> list[GuardrailCount]:
        """What guardrails did, by name, side and outcome."""
        statement = f"""
            WITH scoped AS ({_SCOPED}), ran AS (
                SELECT started_unix_s, unnest(from_json(guardrails, $form)) AS ran
                FROM scoped WHERE guardrails <> '')
            SELECT ran.rule AS rule, ran.side AS side, ran.outcome AS outcome,
                count(*) AS requests, avg(ran.ms) AS mean_ms, max(started_unix_s) AS last_unix_s
            FROM ran GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        """
        parameters = _parameters(scope, with_prices=False) | {"form": _GUARDRAILS_FORM}
        return [
            GuardrailCount(last_at=_moment(row.pop("last_unix_s")), **row)
            for row in self._query(statement, parameters)
        ]

    def cache(self, scope: Scope) -> CacheNumbers:
        """What the response cache did."""
        statement = f"""
            WITH scoped AS ({_SCOPED})
            SELECT count(*) FILTER (cache = 'hit') AS hits,
                count(*) FILTER (cache = 'miss') AS misses,
                count(*) FILTER (cache = 'bypass') AS bypassed,
                coalesce(sum(saved_tokens), 0)::BIGINT AS saved_tokens, sum(saved_usd) AS saved_usd
            FROM scoped
        """
        return CacheNumbers(**self._query(statement, _parameters(scope, with_prices=False))[0])

    def requests(self, scope: Scope, limit: int) -> list[RequestRow]:
        """The newest requests."""
        newest = f"SELECT * FROM ({_SCOPED}) ORDER BY started_unix_s DESC, request_id LIMIT $limit"
        return self._rows(newest, _parameters(scope) | {"limit": limit}, scope.prices)

    def request(
        self, project_id: str, request_id: str, prices: list[PriceSpan]
    ) -> RequestRow | None:
        """One request."""
        filters = Filters(request_id=request_id, traffic="all")
        scope = Scope(project_id=project_id, window=_EVER, filters=filters, prices=prices)
        found = self._rows(f"SELECT * FROM ({_SCOPED}) LIMIT 1", _parameters(scope), prices)
        return found[0] if found else None

    def _rows(
        self, scoped: str, parameters: dict[str, Any], prices: list[PriceSpan]
    ) -> list[RequestRow]:
        if prices:
            statement = f"""
                WITH scoped AS ({scoped}), {_MACHINE_COST}, per_request AS (
                    SELECT request_id, started_unix_s, sum(machine_usd) AS machine_usd
                    FROM machine_costs GROUP BY 1, 2)
                SELECT {_ROW}, machine_usd
                FROM scoped LEFT JOIN per_request USING (request_id, started_unix_s)
            """
        else:
            statement = f"WITH scoped AS ({scoped}) SELECT {_ROW}, NULL AS machine_usd FROM scoped"
        found = self._query(f"{statement} ORDER BY started_unix_s DESC, request_id", parameters)
        return [_row(row) for row in found]

    def machines(self, window: Window, prices: list[PriceSpan]) -> list[MachineTime]:
        """The time of every machine that Bud ran on, over all projects."""
        statement = f"""
            WITH {_PRICED_MINUTES}, used AS (
                SELECT cluster_id, minute, busy_s, greatest(up_s, busy_s) AS up_s
                FROM machine_minutes
                WHERE minute >= $first_minute AND minute < $end_minute)
            SELECT used.cluster_id, sum(used.up_s) AS up_s, sum(used.busy_s) AS busy_s,
                sum(used.busy_s * usd_per_s) AS busy_usd,
                sum((used.up_s - used.busy_s) * usd_per_s) AS idle_usd
            FROM used LEFT JOIN priced_minutes p USING (cluster_id, minute)
            WHERE used.cluster_id IN (SELECT cluster_id FROM machine_minutes WHERE up_s > 0)
            GROUP BY 1 ORDER BY 1
        """
        parameters = _price_parameters(prices) | {
            "first_minute": math.floor(window.start.timestamp() / 60),
            "end_minute": math.ceil(window.end.timestamp() / 60),
        }
        return [MachineTime(**row) for row in self._query(statement, parameters)]

    def last_ingested_at(self) -> datetime | None:
        """When the newest segment was ingested."""
        found = self._query("SELECT max(ingested_unix_s) AS newest FROM segments", {})
        newest = found[0]["newest"]
        return None if newest is None else _moment(newest)

    def _query(self, statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        cursor = self._cursor().execute(statement, parameters)
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


_EVER = Window(start=datetime.fromtimestamp(0, UTC), end=datetime(2200, 1, 1, tzinfo=UTC))


def _sql_type(annotation: Any) -> str:
    if isinstance(annotation, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    return _SQL_TYPES[annotation]


def _moment(unix_s: float) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC)


def _parameters(scope: Scope, *, with_prices: bool = True) -> dict[str, Any]:
    prices = _price_parameters(scope.prices) if with_prices and scope.prices else {}
    return {
        "project_id": scope.project_id,
        "start": scope.window.start.timestamp(),
        "end": scope.window.end.timestamp(),
        "model": scope.filters.model,
        "deployment_id": scope.filters.deployment_id,
        "key_id": scope.filters.key_id,
        "user_id": scope.filters.user_id,
        "request_id": scope.filters.request_id,
        "error_class": scope.filters.error_class,
        "outcome": scope.filters.outcome,
        "traffic": scope.filters.traffic,
        **prices,
    }


def _price_parameters(prices: Sequence[PriceSpan]) -> dict[str, Any]:
    return {
        "price_cluster": [span.cluster_id for span in prices],
        "price_start": [span.start_unix_s for span in prices],
        "price_end": [span.end_unix_s for span in prices],
        "price_usd": [span.usd_per_hour for span in prices],
    }


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    plain = (
        *("requests", "errors", "refused", "cancelled"),
        *("input_tokens", "output_tokens", "cached_tokens"),
    )
    costs = [row[name] for name in ("token_usd", "machine_usd") if row[name] is not None]
    return {
        **{name: row[name] for name in plain},
        "generation_tokens_per_s": row["generation_tokens_per_s"],
        "ttft": _percentiles(row["ttft"]),
        "latency": _percentiles(row["latency"]),
        "cost_usd": sum(costs) if costs else None,
        "unpriced_requests": row["without_token_price"] - (row["with_machine_price"] or 0),
    }


def _percentiles(values: Sequence[float] | None) -> Percentiles:
    if not values:
        return Percentiles()
    return Percentiles(p50_ms=values[0], p95_ms=values[1], p99_ms=values[2])


def _row(row: dict[str, Any]) -> RequestRow:
    machine_usd = row.pop("machine_usd")
    basis = "token price" if row["cost_usd"] is not None else "not set"
    if row["cost_usd"] is None and machine_usd is not None:
        row["cost_usd"], basis = machine_usd, "machine time"
    return RequestRow.model_validate(
        {"started_at": _moment(row.pop("started_unix_s")), "cost_basis": basis, **row}
    )
