"""`bud metrics`: what the gateway answered, and what it cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app import formats
from app.commands import context, output
from app.commands.context import DEFAULT_PROJECT, Project
from app.commands.output import Json

if TYPE_CHECKING:
    from core.metrics.schemas import Filters, Numbers

group = typer.Typer(help="Metrics: summary, top, requests, costs.", no_args_is_help=True)

_Window = Annotated[str, typer.Option("--window", help="15m, 1h, 6h, 24h, 7d or 30d.")]
_Model = Annotated[str, typer.Option("--model", help="Only this model name.")]
_Shadow = Annotated[
    bool, typer.Option("--shadow", help="Copies that went to another model unseen, instead.")
]


@group.command()
def summary(
    window: _Window = "24h",
    model: _Model = "",
    shadow: _Shadow = False,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show requests, errors, tokens, times and cost of a window."""
    from core.metrics import services as metrics
    from core.metrics.schemas import Window

    found = metrics.summary(
        context.operator(), context.project_id(project), Window.preset(window),
        _filters(model, shadow=shadow),
    )  # fmt: skip
    pairs = [
        (
            "requests",
            f"{formats.count(found.requests)} ({formats.requests_rate(found.requests_per_minute)})",
        ),
        ("errors", f"{formats.count(found.errors)} ({formats.percent(found.error_rate)})"),
        ("refused", formats.count(found.refused)),
        ("caller left", formats.count(found.cancelled)),
        ("input", formats.tokens(found.input_tokens)),
        ("output", formats.tokens(found.output_tokens)),
        ("TTFT", _percentiles(found, "ttft")),
        ("latency", _percentiles(found, "latency")),
        ("generation", formats.tokens_per_s(found.generation_tokens_per_s)),
        ("cost", formats.usd(found.cost_usd)),
    ]
    output.show(found, output.details(pairs), as_json=as_json)


def _percentiles(numbers: Numbers, name: str) -> str:
    found = getattr(numbers, name)
    values = (formats.ms(found.p50_ms), formats.ms(found.p95_ms), formats.ms(found.p99_ms))
    return "p50 {}, p95 {}, p99 {}".format(*values)


@group.command()
def top(
    by: Annotated[str, typer.Option("--by", help="model, deployment or key.")] = "model",
    window: _Window = "24h",
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """Show the busiest models, deployments or keys."""
    from core.kernel.errors import InvalidInput
    from core.metrics import services as metrics
    from core.metrics.schemas import Window

    if by not in ("model", "deployment", "key"):
        raise InvalidInput("Unknown grouping.", value=by, remedy="Use model, deployment or key.")
    found = metrics.top(
        context.operator(), context.project_id(project), Window.preset(window),
        group_by=by,  # type: ignore[arg-type]
    )  # fmt: skip
    rows = [
        (
            *(row.label or row.group, formats.count(row.requests), formats.count(row.errors)),
            formats.count(row.refused),
            *(formats.short_count(row.input_tokens), formats.short_count(row.output_tokens)),
            *(formats.ms(row.ttft.p50_ms), formats.ms(row.latency.p95_ms)),
            formats.usd(row.cost_usd),
        )
        for row in found
    ]
    columns = (by, "requests", "errors", "refused", "in", "out", "TTFT p50", "latency p95", "cost")
    output.show(found, output.table(columns, rows, empty=_EMPTY), as_json=as_json)


@group.command()
def requests(
    window: _Window = "1h",
    model: _Model = "",
    shadow: _Shadow = False,
    limit: Annotated[int, typer.Option(help="How many.")] = 20,
    project: Project = DEFAULT_PROJECT,
    as_json: Json = False,
) -> None:
    """List the newest requests."""
    from core.metrics import services as metrics
    from core.metrics.schemas import Window

    found = metrics.requests(
        context.operator(), context.project_id(project), Window.preset(window),
        _filters(model, shadow=shadow), limit=limit,
    )  # fmt: skip
    rows = [
        (
            *(f"{row.started_at:%H:%M:%S}", row.model, row.status, row.error_class),
            *(formats.tokens(row.input_tokens), formats.tokens(row.output_tokens)),
            *(formats.ms(row.ttft_ms), formats.ms(row.duration_ms), formats.usd(row.cost_usd)),
        )
        for row in found
    ]
    columns = ("UTC", "model", "status", "error", "in", "out", "TTFT", "took", "cost")
    output.show(found, output.table(columns, rows, empty=_EMPTY), as_json=as_json)


@group.command()
def costs(
    window: _Window = "24h", project: Project = DEFAULT_PROJECT, as_json: Json = False
) -> None:
    """Show what requests cost, and what machines cost busy and idle."""
    from core.metrics import services as metrics
    from core.metrics.schemas import Window

    found = metrics.costs(context.operator(), context.project_id(project), Window.preset(window))
    rows = [
        (
            *(machine.cluster_id, formats.duration(machine.busy_s)),
            *(formats.usd(machine.busy_usd), formats.duration(machine.idle_s)),
            formats.usd(machine.idle_usd),
        )
        for machine in found.machines
    ]
    columns = ("machine", "busy", "busy cost", "idle", "idle cost")
    text = f"Requests of this project: {formats.usd(found.requests_usd)}\n\n"
    output.show(
        found, text + output.table(columns, rows, empty="No machine time."), as_json=as_json
    )


def _filters(model: str, *, shadow: bool = False) -> Filters:
    from core.metrics.schemas import Filters

    return Filters(model=model, traffic="shadow" if shadow else "callers")


_EMPTY = "No requests in this window. Make one: bud chat MODEL"
