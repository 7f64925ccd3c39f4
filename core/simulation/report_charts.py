"""The charts of a report, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from core.kernel.html_report import svg, text
from core.simulation.schemas import Answer, MemoryParts
from core.simulation.what_if import pareto

_COLORS = ("#18a673", "#3b82f6", "#f59e0b", "#a855f7", "#ec4899")
_FREE_COLOR = "#94a3b888"
_WIDTH, _HEIGHT = 900, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 14, 76
_BAR_HEIGHT = 34
_LABEL_CHARACTER_PX = 7.2


def curves(answer: Answer) -> str:
    """End-to-end latency against output tokens/s per GPU, a line a layout, the front marked."""
    points = [
        (number, point.concurrency, point.outcome.e2e_ms.mean / 1e3,
         point.outcome.tokens_per_s_per_gpu.mean)
        for number, curve in enumerate(answer.curves)
        for point in curve.points
    ]  # fmt: skip
    x_of = _log_scale([each[2] for each in points], _LEFT, _WIDTH - _RIGHT)
    most = _nice(max(each[3] for each in points))
    front = pareto([each[2] for each in points], [each[3] for each in points])

    def y_of(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / most * (_HEIGHT - _BOTTOM - _TOP)

    parts = [_grid(most, y_of), _decades([each[2] for each in points], x_of)]
    for number, curve in enumerate(answer.curves):
        color = _COLORS[number % len(_COLORS)]
        line = [(x_of(each[2]), y_of(each[3])) for each in points if each[0] == number]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(_legend_entry(number, color, curve.layout))
    for (number, concurrency, x, y), is_on_front in zip(points, front, strict=True):
        color = _COLORS[number % len(_COLORS)]
        ring = ' stroke="currentColor" stroke-width="1.5"' if is_on_front else ""
        title = f"{concurrency} in flight: {x:,.2f} s, {y:,.0f} tokens/s per GPU"
        parts.append(
            f'<circle cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="{5 if is_on_front else 3}" '
            f'fill="{color}"{ring}><title>{escape(title)}</title></circle>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(text(middle, _HEIGHT - 40, "end-to-end latency (s)", "middle"))
    parts.append(text(_LEFT, 10, "output tokens/s per GPU; ringed: the Pareto front"))
    return svg(_WIDTH, _HEIGHT, parts, "Latency against throughput")


def memory(held: MemoryParts) -> str:
    """Memory of one device by what holds it, beside what may be used."""
    parts = {
        "weights": held.weights_gb,
        "KV cache": held.kv_gb,
        "activations": held.activations_gb,
        "runtime": held.runtime_gb,
    }
    free = max(0.0, held.free_gb)
    whole = max(held.needed_gb, held.usable_gb)
    return _stack({**parts, "free": free} if free else parts, whole, "GB", "Memory of one device")


def step(step_ms: Mapping[str, float]) -> str:
    """Parts of a decode step."""
    return _stack(step_ms, sum(step_ms.values()), "ms", "Parts of a decode step")


def _stack(parts: Mapping[str, float], whole: float, unit: str, title: str) -> str:
    shown, x = [], 0.0
    for number, (name, amount) in enumerate(parts.items()):
        color = _FREE_COLOR if name == "free" else _COLORS[number % len(_COLORS)]
        width = _WIDTH * amount / whole if whole else 0.0
        label = f"{name} {amount:,.2f} {unit}"
        shown.append(
            f'<rect x="{x:.1f}" y="0" width="{width:.1f}" height="{_BAR_HEIGHT}" fill="{color}">'
            f"<title>{escape(label)}</title></rect>"
        )
        x += width
    legend, at = [], 0.0
    for number, (name, amount) in enumerate(parts.items()):
        color = _FREE_COLOR if name == "free" else _COLORS[number % len(_COLORS)]
        label = f"{name} {amount:,.2f} {unit}"
        legend.append(f'<circle cx="{at + 6:.0f}" cy="{_BAR_HEIGHT + 21}" r="6" fill="{color}"/>')
        legend.append(text(at + 18, _BAR_HEIGHT + 26, label))
        at += 40 + _LABEL_CHARACTER_PX * len(label)
    return svg(_WIDTH, _BAR_HEIGHT + 40, [*shown, *legend], title)


def _log_scale(values: Sequence[float], start: float, end: float) -> Callable[[float], float]:
    low, high = math.log(min(values)), math.log(max(values))
    span = high - low or 1.0
    return lambda value: start + 8 + (math.log(value) - low) / span * (end - start - 16)


def _nice(most: float) -> float:
    """The next round number at or over `most`."""
    size = 10.0 ** math.floor(math.log10(most))
    return next(size * step for step in (1, 2, 2.5, 5, 10) if size * step >= most)


def _grid(most: float, y_of: Callable[[float], float]) -> str:
    lines = []
    for quarter in range(5):
        value = most * quarter / 4
        y = y_of(value)
        lines.append(
            f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="currentColor" stroke-opacity=".15"/>'
        )
        lines.append(text(_LEFT - 8, y + 4, f"{value:,.5g}", "end"))
    return "".join(lines)


def _decades(values: Sequence[float], x_of: Callable[[float], float]) -> str:
    low, high = min(values), max(values)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in (1, 2, 3, 5, 7)]
    shown = [tick for tick in ticks if low <= tick <= high]
    return "".join(
        text(x_of(tick), _HEIGHT - _BOTTOM + 18, f"{tick:g}", "middle") for tick in shown
    )


def _legend_entry(number: int, color: str, label: str) -> str:
    x = _LEFT + number * (_WIDTH - _LEFT) / len(_COLORS)
    y = _HEIGHT - 12
    return f'<circle cx="{x:.0f}" cy="{y - 4}" r="5" fill="{color}"/>' + text(x + 10, y, label)
