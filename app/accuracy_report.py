"""The table of `bud simulator validate`, for the terminal and for docs/accuracy.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from core.kernel.settings import ROOT

if TYPE_CHECKING:
    from core.simulation.training import About
    from core.simulation.validation import Score

PATH = ROOT / "docs" / "accuracy.md"
_NAMES = {"tpot_ms": "TPOT", "ttft_ms": "TTFT"}
_COLUMNS = (
    *("held out", "time", "rows from", "rows", "MAPE %", "median %", "in 80% band %"),
    *("roofline MAPE %", "no physics MAPE %", "must | target"),
)
_HEAD = """\
# How accurate the simulator is

Written by `./bud simulator validate`. Every figure is of rows that were held out as whole groups
({folds} outer folds): nothing was trained, chosen or scaled on them. Rows are de-duplicated. For
each outer fold the roofline is calibrated anew, the trees are trained anew, and how they are
combined and how wide the bands are is chosen in inner folds of the other rows.

Data: {rows:,} cleaned rows, newest of {date}, SHA-256 `{hash}`; method {version}. See
[data-sources.md](data-sources.md) and [simulator-method.md](simulator-method.md).

- **MAPE**: mean of |predicted − measured| / measured. **Median**: of the same.
- **In 80% band**: share of measured values between the printed bounds.
- **Roofline**: the calibrated analytic model alone, on the same rows.
- **No physics**: gradient-boosted trees that see sizes and settings but no roofline, on the same
  rows.
- **Must | target**: what the project set itself for the MAPE of all rows together.

"""


def table(scores: Sequence[Score]) -> str:
    """Aligned text."""
    from app.commands import output

    return output.table(_COLUMNS, list(map(_cells, scores)), empty="No rows.")


def write(scores: Sequence[Score], static: tuple[int, float], about: About) -> None:
    """Write docs/accuracy.md."""
    from core.simulation.validation import OUTER_FOLDS

    head = _HEAD.format(
        folds=OUTER_FOLDS,
        rows=about.rows,
        date=about.data_date,
        hash=about.data_hash[:16],
        version=about.version,
    )
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS)), *map(_line, map(_cells, scores))]
    rows, median = static
    tail = (
        f"\n{rows:,} rows of `alcf` are of static batches and have an end-to-end time only; they "
        "calibrate engines and devices that the other files lack. The analytic model, fitted to "
        f"them, has a median error of {median:.0f}% there (not held out).\n"
    )
    PATH.write_text(head + "\n".join(lines) + "\n" + tail, encoding="utf-8")


def _line(cells: Iterable[object]) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _cells(score: Score) -> tuple[str, ...]:
    is_total = score.source == ""
    must, target = score.limits
    return (
        score.split.title,
        _NAMES[score.head],
        score.source or "all",
        f"{score.rows:,}",
        f"{score.mape:.1f}",
        f"{score.median:.1f}",
        f"{score.coverage:.0f}",
        f"{score.roofline_mape:.1f}",
        f"{score.trees_mape:.1f}",
        f"{must:g} | {target:g}" if is_total else "",
    )
