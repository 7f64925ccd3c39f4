"""How far repeats of one configuration lie apart, and what of it has a cause.

Repeats are rows of one model, system, engine, precision, mode, lengths, layout and concurrency.
Each is predicted from the others; what nothing explains bounds what any predictor can reach.
Causes are looked for one after the other, each by a rule over the rows alone, and what a rule
marks is set apart before the next. `docs/simulator-data.md` says what was found.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from core.simulation import cleaning, dataset

_SWEEP = ["model", "system", "engine", "precision", "mode"]
_CONFIGURATION = [
    *_SWEEP,
    *("isl", "osl", "tp", "pp", "ep", "dp", "replicas"),
    *(
        f"{side}_{name}"
        for side in ("prefill", "decode")
        for name in ("workers", "tp", "pp", "ep", "dp")
    ),
]
_TIMES = ["tpot_ms", "ttft_ms"]
_CONCURRENCY_BANDS = {"1 to 8": (1, 8), "9 to 64": (9, 64), "65 and more": (65, 10**9)}

# Half of the last digit, and what binary fractions add to it.
_ROUNDING_MS = 0.0051
_SPECULATIVE_TPOT = 0.8
_SPECULATIVE_TTFT = 0.9
_SPECULATIVE_POINTS = 2
_DISTURBED = 1.1
_SLOW_START = 1.5
_SLOW_START_MS = 500

# What rules need to see, beside the numbers that `prepared` adds.
_KEPT = ["source", "engine_version", "spec_decoding", "mode", "prefill_workers", "concurrency"]

# A number a row: rows are compared with those of the same label. 0 is the ordinary one.
Labels: TypeAlias = "pd.Series[Any]"


@dataclass(frozen=True)
class Cause:
    """Why repeats differ: a name, the rule in words, and the rule, which labels rows."""

    name: str
    rule: str
    find: Callable[[pd.DataFrame], Labels]


@dataclass(frozen=True)
class Difference:
    """Each row against the geometric mean of its repeats, in % of the row's own time."""

    rows: int
    groups: int
    tpot_mean: float
    tpot_median: float
    ttft_mean: float
    ttft_median: float


@dataclass(frozen=True)
class Step:
    """The difference that is left once `cause`, and those before it, are set apart.

    Attributes:
        scope: Of which rows.
        cause: Its name; empty for the repeats as they are.
        marked: Repeats that its rule labels.
        left: The difference.
    """

    scope: str
    cause: str
    marked: int
    left: Difference


@dataclass(frozen=True)
class Ratio:
    """Median times of rows with speculative decoding as a share of those of the rows without.

    Attributes:
        rows: How speculative decoding is known.
        concurrency: Requests in flight.
        points: Configurations at one concurrency that were measured both ways.
        tpot: Share of TPOT.
        ttft: Share of TTFT.
    """

    rows: str
    concurrency: str
    points: int
    tpot: float
    ttft: float


@dataclass(frozen=True)
class Control:
    """What the rule for unnamed speculative decoding makes of rows that say what they did."""

    spec_decoding: str
    rows: int
    marked: int


@dataclass(frozen=True)
class Report:
    """The steps from all of the difference to the rest, and evidence on speculative decoding."""

    steps: list[Step]
    ratios: list[Ratio]
    controls: list[Control]


def of_shipped() -> Report:
    """Of the rows that ship with Bud."""
    return of(pd.read_parquet(dataset.PATH))


def of(table: pd.DataFrame) -> Report:
    """Of a cleaned table, with columns as in `cleaning.COLUMNS`."""
    rows = prepared(table)
    steps = [step for name, part in _scopes(rows).items() for step in _steps(name, part)]
    return Report(steps, _evidence(rows), _controls(rows))


def _steps(scope: str, rows: pd.DataFrame) -> list[Step]:
    steps = [Step(scope, "", 0, _difference(rows))]
    for cause in CAUSES:
        labels = cause.find(rows)
        marked = int((labels[_repeated(rows).index] != 0).sum())
        rows = apart(rows, labels)
        steps.append(Step(scope, cause.name, marked, _difference(rows)))
    return steps


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of services, with numbers for what belongs together.

    `configuration` numbers concurrency curves, `alike` the rows that are compared, `sweep` the
    curves that one source measured in one go: of a day, an engine version and a listing.
    """
    rows = table[table["lengths"] != cleaning.STATIC_BATCH].reset_index(drop=True)
    one_go = [*_SWEEP, "source", "engine_version", "measured_on", "spec_decoding", "listing"]
    return rows[[*_KEPT, *_TIMES, "ttft_p50_ms"]].assign(
        # Categories are compared and copied much faster than text.
        **{name: rows[name].astype("category") for name in _KEPT if rows[name].dtype == "string"},
        configuration=_number(rows, _CONFIGURATION),
        alike=_number(rows, [*_CONFIGURATION, "concurrency"]),
        sweep=_number(rows.assign(listing=_listing(rows)), one_go),
    )


def _number(rows: pd.DataFrame, columns: list[str]) -> pd.Series[Any]:
    return rows.groupby(columns, sort=False).ngroup()


def _listing(rows: pd.DataFrame) -> pd.Series[Any]:
    """The run of an inferencemax row; of the other rows, whether they come from the database."""
    is_run = rows["source"] == cleaning.INFERENCEMAX
    run = rows["source_id"].str.split(":").str[0]
    database = rows["source_id"].str.extract(r"_(cfg)\d+$")[0].fillna("")
    return run.where(is_run, database)


def apart(rows: pd.DataFrame, labels: Labels) -> pd.DataFrame:
    """`rows` with `alike` so that only rows of one label are compared."""
    return rows.assign(alike=_number(rows.assign(label=labels), ["alike", "label"]))


def _together(is_marked: pd.Series[Any]) -> Labels:
    """Marked rows are compared with each other."""
    return is_marked.astype("int64")


def _alone(is_marked: pd.Series[Any]) -> Labels:
    """Marked rows are compared with nothing."""
    return (is_marked.index.to_series() + 1).where(is_marked, 0)


def copies(rows: pd.DataFrame) -> Labels:
    """Rows whose times are those of another repeat in hundredths of a millisecond."""
    numbered = rows.assign(row=rows.index)[["alike", "row", *_TIMES]]
    pairs = numbered.merge(numbered, on="alike", suffixes=("", "_other"))
    is_copy = pairs["row"] > pairs["row_other"]
    for time in _TIMES:
        is_copy &= (pairs[time] - pairs[f"{time}_other"]).abs() <= _ROUNDING_MS
        is_copy &= (pairs[time] - pairs[time].round(2)).abs() < 1e-9
    return _alone(numbered["row"].isin(pairs.loc[is_copy, "row"]))


def named_speculative(rows: pd.DataFrame) -> Labels:
    """Rows that name multi-token prediction."""
    return _together(rows["spec_decoding"] == "mtp")


def unnamed_workers(rows: pd.DataFrame) -> Labels:
    """Disaggregated rows that do not say how many workers they ran on."""
    return _alone((rows["mode"] == "disagg") & (rows["prefill_workers"] == 0))


def speculative(rows: pd.DataFrame) -> Labels:
    """Sweeps that another one shows to have drafted tokens: see the rule in CAUSES.

    Drafts save steps, most of them at low concurrency, where a step reads the weights whatever
    it computes; they do not make a prefill shorter, as a better engine does. Both shares are
    medians: of TPOT over the configurations, each at the lowest concurrency that the two sweeps
    share; of TTFT over all points that they share.
    """
    times = rows.groupby(["configuration", "concurrency", "alike", "sweep"])[_TIMES].median()
    times = times.reset_index()
    keys = ["configuration", "concurrency", "alike"]
    points = times.merge(times, on=keys, suffixes=("", "_other")).sort_values("concurrency")
    points = points[points["sweep"] != points["sweep_other"]]
    for time in _TIMES:
        points[time] /= points[f"{time}_other"]
    sweeps = ["sweep", "sweep_other"]
    lowest = points.drop_duplicates(["configuration", *sweeps]).groupby(sweeps)
    pairs = points.groupby(sweeps)
    is_speculative = (
        (lowest["tpot_ms"].median() <= _SPECULATIVE_TPOT)
        & (pairs["ttft_ms"].median() >= _SPECULATIVE_TTFT)
        & (pairs.size() >= _SPECULATIVE_POINTS)
    )
    found = is_speculative[is_speculative].index.get_level_values("sweep")
    return _together(rows["sweep"].isin(found))


def versions(rows: pd.DataFrame) -> Labels:
    """Rows of another engine version than most of their repeats."""
    version = rows["engine_version"].cat.codes.astype("int64")
    sizes = version.groupby([rows["alike"], version]).transform("size")
    order = sizes.sort_values(ascending=False, kind="stable").index
    usual = version[order].groupby(rows["alike"]).first()
    return (version + 1).where(version != rows["alike"].map(usual), 0)


def disturbed(rows: pd.DataFrame) -> Labels:
    """Points of a curve whose TPOT falls again with more requests in flight."""
    falling = rows.sort_values("concurrency", ascending=False, kind="stable")
    curve = [falling["configuration"], falling["sweep"]]
    lowest = falling.groupby(curve)["tpot_ms"].cummin()
    beyond = lowest.groupby(curve).shift(1)
    return _alone((falling["tpot_ms"] > _DISTURBED * beyond).reindex(rows.index))


def slow_starts(rows: pd.DataFrame) -> Labels:
    """Rows whose mean TTFT is far above their median one."""
    mean, median = rows["ttft_ms"], rows["ttft_p50_ms"]
    return _alone((mean > _SLOW_START * median) & (mean - median > _SLOW_START_MS))


CAUSES = (
    Cause(
        "copy",
        "both times are another repeat's, rounded to 0.01 ms",
        copies,
    ),
    Cause(
        "named speculative decoding",
        "spec_decoding is mtp",
        named_speculative,
    ),
    Cause(
        "unnamed numbers of workers",
        "disaggregated, prefill_workers is blank",
        unnamed_workers,
    ),
    Cause(
        "unnamed speculative decoding",
        f"a sweep (source, listing, engine version and day) takes at most {_SPECULATIVE_TPOT} of "
        f"another's TPOT where concurrency is lowest, and at least {_SPECULATIVE_TTFT} of its TTFT",
        speculative,
    ),
    Cause(
        "engine version",
        "engine_version is not that of most repeats",
        versions,
    ),
    Cause(
        "disturbed point",
        f"TPOT is more than {_DISTURBED} times that of a higher concurrency of the same curve",
        disturbed,
    ),
    Cause(
        "slow start",
        f"mean TTFT is more than {_SLOW_START} times the median one, and {_SLOW_START_MS} ms above",
        slow_starts,
    ),
)


def _scopes(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    aggregated = rows["mode"] == "agg"
    silicon = rows["source"] == cleaning.SILICON
    return {
        "aggregated": rows[aggregated],
        "aggregated, nvidia_silicon": rows[aggregated & silicon],
        "disaggregated": rows[~aggregated],
    }


def _repeated(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["alike"].duplicated(keep=False)]


def _difference(rows: pd.DataFrame) -> Difference:
    rows = _repeated(rows)
    group = rows.groupby("alike")
    others = group["alike"].transform("size") - 1
    errors = []
    for time in _TIMES:
        logarithm = np.log(rows[time])
        total = logarithm.groupby(rows["alike"]).transform("sum")
        error = 100 * np.abs(np.expm1((total - logarithm) / others - logarithm))
        errors += [float(error.mean()), float(error.median())]
    return Difference(len(rows), group.ngroups, *errors)


def _evidence(rows: pd.DataFrame) -> list[Ratio]:
    named = rows["spec_decoding"]
    aggregated = rows[rows["mode"] == "agg"]
    found = speculative(aggregated) != 0
    return [
        *_ratios("named", rows[named == "mtp"], rows[named == "none"]),
        *_ratios("found by the rule", aggregated[found], aggregated[~found]),
    ]


def _ratios(name: str, with_drafts: pd.DataFrame, without: pd.DataFrame) -> list[Ratio]:
    point = ["alike", "concurrency"]
    shares = with_drafts.groupby(point)[_TIMES].median() / without.groupby(point)[_TIMES].median()
    shares = shares.dropna()
    concurrency = shares.index.get_level_values("concurrency")
    found = []
    for band, (low, high) in _CONCURRENCY_BANDS.items():
        own = shares[(concurrency >= low) & (concurrency <= high)]
        tpot, ttft = (float(own[time].median()) for time in _TIMES)
        found.append(Ratio(name, band, len(own), tpot, ttft))
    return found


def _controls(rows: pd.DataFrame) -> list[Control]:
    is_marked = speculative(rows).astype(bool)
    found = []
    for name in ("mtp", "none"):
        own = is_marked[rows["spec_decoding"] == name]
        found.append(Control(name, len(own), int(own.sum())))
    return found
