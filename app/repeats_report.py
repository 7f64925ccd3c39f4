"""The tables of `bud simulator repeats`, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.commands import output

if TYPE_CHECKING:
    from core.simulation.repeats import Control, Ratio, Report, Step

_STEPS = (
    *("repeats", "set apart", "rows", "left: groups", "rows"),
    *("TPOT mean %", "median %", "TTFT mean %", "median %"),
)
_RATIOS = ("speculative decoding", "concurrency", "points", "share of TPOT", "share of TTFT")
_CONTROLS = ("spec_decoding", "rows", "marked by the rule")


def text(report: Report) -> str:
    """Aligned text: the rules, the steps, the evidence."""
    from core.simulation.repeats import CAUSES

    rules = output.details([(cause.name, cause.rule) for cause in CAUSES])
    parts = (
        "Each row against the geometric mean of its repeats; causes are set apart in this order.",
        output.table(
            _STEPS,
            [_step(each) for each in report.steps if _says_something(each)],
            empty="No rows.",
        ),
        f"Rules:\n{rules}",
        "Times with speculative decoding as a share of those without (medians):",
        output.table(_RATIOS, list(map(_ratio, report.ratios)), empty="No rows."),
        "The rule for unnamed speculative decoding on the rows that name it:",
        output.table(_CONTROLS, list(map(_control, report.controls)), empty="No rows."),
    )
    return "\n\n".join(parts)


def _says_something(step: Step) -> bool:
    return step.marked > 0 or not step.cause


def _step(step: Step) -> tuple[str, ...]:
    left = step.left
    return (
        step.scope,
        step.cause or "nothing",
        f"{step.marked:,}",
        f"{left.groups:,}",
        f"{left.rows:,}",
        *(
            f"{value:.1f}"
            for value in (left.tpot_mean, left.tpot_median, left.ttft_mean, left.ttft_median)
        ),
    )


def _ratio(ratio: Ratio) -> tuple[str, ...]:
    shares = (ratio.tpot, ratio.ttft)
    return (ratio.rows, ratio.concurrency, f"{ratio.points:,}", *(f"{each:.2f}" for each in shares))


def _control(control: Control) -> tuple[str, ...]:
    return (control.spec_decoding, f"{control.rows:,}", f"{control.marked:,}")
