"""The analyst report: one HTML file that needs nothing else, and a CSV of its numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from core.kernel import clock
from core.kernel.html_report import NONE as _NONE
from core.kernel.html_report import cards, document, moment
from core.kernel.html_report import table as _table
from core.simulation import report_charts as charts
from core.simulation.schemas import Answer, Change, Outcome, Value, WhatIf

_MOST_OFFERS = 15
_FIELDS = {
    "model": "Model",
    "hardware": "Hardware",
    "region": "Region",
    "gpus": "GPUs",
    "engine": "Engine",
    "precision": "Weights",
    "mode": "Mode",
    "tp": "Tensor parallel",
    "pp": "Pipeline parallel",
    "ep": "Expert parallel",
    "dp": "Ranks of data-parallel attention",
    "isl": "Input tokens (mean)",
    "osl": "Output tokens (mean)",
    "concurrency": "Requests in flight",
    "prefix_hit_share": "Prefix cache hits (share of the input)",
    "speculation": "Speculative decoding",
    "kv_precision": "KV cache",
    "chunk_tokens": "Tokens of a step",
    "max_sequences": "Sequences of a step",
    "block_tokens": "Tokens of a block of the KV cache",
    "prefill_workers": "Prefill workers",
    "prefill_tp": "Tensor parallel of prefill",
    "decode_workers": "Decode workers",
    "decode_tp": "Tensor parallel of decode",
    "usd_per_gpu_hour": "Price of a GPU hour (USD)",
}
_SPLIT_ONLY = {"prefill_workers", "prefill_tp", "decode_workers", "decode_tp"}
_OFTEN_UNSET = {"region", "ep", "dp", "chunk_tokens", "max_sequences", "block_tokens"}
_OFTEN_UNSET |= {"usd_per_gpu_hour"}
_WHOLE_ONLY = {"gpus", "tp", "pp"}


def html(answers: Sequence[Answer], *, title: str = "") -> str:
    """The report of one answer, or of several side by side.

    Args:
        answers: At least one; charts and details are those of the first.
        title: What heads it; the first answer's own title when empty.
    """
    first = answers[0]
    heading = title or first.title
    body = [
        f"<h1>{escape(heading)}</h1>",
        f'<p class="soft">Predicted by Bud on {moment(clock.now())}. {_band_line()}</p>',
        *_warnings(first),
        _cards(first.outcome),
    ]
    if len(answers) > 1:
        body += ["<h2>Side by side</h2>", _side_by_side(answers)]
    body += [
        "<h2>The question</h2>",
        _query_table(answers),
        "<h2>Latency against throughput</h2>",
        charts.curves(first),
        "<h2>Memory of one device</h2>",
        charts.memory(first.outcome.memory),
        "<h2>Where the time of a decode step goes</h2>",
        charts.step(first.step_ms),
        '<p class="soft">Analytic parts; they overlap, so they add up to more than a step.</p>',
        "<h2>What changes would buy</h2>",
        _changes_table(first),
        "<h2>What it costs</h2>",
        _offers_table(first),
        *_launch_section(answers),
        "<h2>How it was predicted</h2>",
        _basis_list(first),
    ]
    return document(heading, body)


def csv_text(answers: Sequence[Answer]) -> str:
    """The numbers of a report as CSV: a row for each answer, curve point and possible change.

    Every row repeats its whole question, and the version and the data of what predicted it.
    """
    rows = [row for answer in answers for row in _csv_rows(answer)]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _csv_rows(answer: Answer) -> Iterable[dict[str, Any]]:
    yield _csv_row(answer, "asked", "", answer.query, answer.outcome)
    for curve in answer.curves:
        for point in curve.points:
            query = curve.query.model_copy(update={"concurrency": point.concurrency})
            yield _csv_row(answer, "curve", curve.layout, query, point.outcome)
    for change in answer.changes:
        if change.outcome is not None:
            yield _csv_row(answer, "change", change.name, change.query, change.outcome)


def _csv_row(
    answer: Answer, kind: str, name: str, query: WhatIf, outcome: Outcome
) -> dict[str, Any]:
    bands = {
        "ttft_ms": outcome.ttft_ms,
        "tpot_ms": outcome.tpot_ms,
        "e2e_ms": outcome.e2e_ms,
        "tokens_per_s_per_user": outcome.tokens_per_s_per_user,
        "tokens_per_s_per_gpu": outcome.tokens_per_s_per_gpu,
        "usd_per_million_output_tokens": outcome.usd_per_million_output_tokens,
    }
    return {
        "kind": kind,
        "name": name,
        **query.model_dump(),
        **{key: number for column, band in bands.items() for key, number in _spread(column, band)},
        "requests_per_s": _rounded(outcome.requests_per_s),
        "devices": outcome.devices,
        "usd_per_hour": _rounded(outcome.usd_per_hour),
        "memory_gb_per_gpu": _rounded(outcome.memory.needed_gb),
        "most_concurrency": outcome.most_concurrency,
        "fits": outcome.fits,
        "support": outcome.support,
        "predictor_version": answer.basis.version,
        "data_date": answer.basis.data_date,
        "data_hash": answer.basis.data_hash,
    }


def _spread(column: str, band: Value | None) -> Iterable[tuple[str, float | str]]:
    for suffix, name in (("", "mean"), ("_low", "low"), ("_high", "high")):
        yield f"{column}{suffix}", _rounded(None if band is None else getattr(band, name))


def _rounded(number: float | None) -> float | str:
    return "" if number is None else float(f"{number:.6g}")


def _band_line() -> str:
    return "Bounds in brackets hold the mean of a run in 80% of the cases."


def _warnings(answer: Answer) -> Iterable[str]:
    if not answer.outcome.fits:
        fits = "; ".join(answer.remedies) or "nothing that was tried"
        yield (
            f'<p class="warn"><b>This does not fit in memory.</b> The numbers are what it '
            f"would do if it did. What would fit: {escape(fits)}.</p>"
        )
    for note in answer.notes:
        yield f'<p class="warn">{escape(note)}</p>'


def _cards(outcome: Outcome) -> str:
    found = [
        ("Time to first token", _ms(outcome.ttft_ms.mean), _range(outcome.ttft_ms, _ms)),
        ("Time per output token", _ms(outcome.tpot_ms.mean), _range(outcome.tpot_ms, _ms)),
        (
            "Tokens/s per user",
            f"{outcome.tokens_per_s_per_user.mean:,.1f}",
            _range(outcome.tokens_per_s_per_user, _number),
        ),
        (
            "Output tokens/s per GPU",
            f"{outcome.tokens_per_s_per_gpu.mean:,.0f}",
            _range(outcome.tokens_per_s_per_gpu, _number),
        ),
        ("Requests/s", f"{outcome.requests_per_s:,.2f}", f"of {outcome.devices} devices"),
        ("Per million output tokens", *_usd_card(outcome)),
        (
            "Memory of a device",
            f"{outcome.memory.needed_gb:,.1f} GB",
            f"of {outcome.memory.usable_gb:,.1f} GB usable",
        ),
        ("How sure", outcome.support, "the nearer, the surer"),
    ]
    return cards(found)


def _usd_card(outcome: Outcome) -> tuple[str, str]:
    usd = outcome.usd_per_million_output_tokens
    if usd is None:
        return _NONE, "price not set" if outcome.usd_per_hour is None else "it does not fit"
    return _usd(usd.mean), _range(usd, _usd)


def _side_by_side(answers: Sequence[Answer]) -> str:
    rows: list[tuple[str, list[str]]] = [
        ("GPUs", [str(each.outcome.devices) for each in answers]),
        ("Time to first token", [_banded(each.outcome.ttft_ms, _ms) for each in answers]),
        ("Time per output token", [_banded(each.outcome.tpot_ms, _ms) for each in answers]),
        (
            "Output tokens/s per GPU",
            [_banded(each.outcome.tokens_per_s_per_gpu, _number) for each in answers],
        ),
        ("USD per hour", [_usd(each.outcome.usd_per_hour) for each in answers]),
        ("USD per million output tokens", [_usd_card(each.outcome)[0] for each in answers]),
        ("Fits", ["yes" if each.outcome.fits else "no" for each in answers]),
        ("How sure", [each.outcome.support for each in answers]),
    ]
    return _table(["", *(each.title for each in answers)], [[name, *cells] for name, cells in rows])


def _query_table(answers: Sequence[Answer]) -> str:
    modes = {each.query.mode for each in answers}
    hidden = {"agg": _SPLIT_ONLY, "disagg": _WHOLE_ONLY}[modes.pop()] if len(modes) == 1 else set()
    asked = {name for each in answers for name in each.query.changes()}
    hidden = hidden | (_OFTEN_UNSET - asked)
    rows = [
        [label, *(_said(each.query, name) for each in answers)]
        for name, label in _FIELDS.items()
        if name not in hidden
    ]
    return _table(["", *(each.model_name for each in answers)], rows)


def _said(query: WhatIf, name: str) -> str:
    value = getattr(query, name)
    if value == "":
        return {"precision": "as published", "region": "the cheapest"}[name]
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _changes_table(answer: Answer) -> str:
    now, changes = answer.outcome, answer.changes
    rows = [_change_row(now, each, each.outcome) for each in changes if each.outcome is not None]
    header = ["Change", "TTFT", "TPOT", "Output tokens/s", "USD/M output tokens"]
    refused = "<br>".join(
        f"{escape(each.name)}: {escape(each.reason)}." for each in changes if each.outcome is None
    )
    said = f'<p class="soft"><b>Not possible</b><br>{refused}</p>' if refused else ""
    return _table(header, rows) + said


def _change_row(now: Outcome, change: Change, new: Outcome) -> list[str]:
    old_usd, new_usd = now.usd_per_million_output_tokens, new.usd_per_million_output_tokens
    usd = _NONE if old_usd is None or new_usd is None else _percent(old_usd.mean, new_usd.mean)
    output = now.tokens_per_s_per_gpu.mean * now.devices
    return [
        change.name if new.fits else f"{change.name} (does not fit)",
        _percent(now.ttft_ms.mean, new.ttft_ms.mean),
        _percent(now.tpot_ms.mean, new.tpot_ms.mean),
        _percent(output, new.tokens_per_s_per_gpu.mean * new.devices),
        usd,
    ]


def _offers_table(answer: Answer) -> str:
    if not answer.offers:
        return '<p class="soft">Price not set: no cloud price is known for this device.</p>'
    rows = [
        [
            offer.cloud,
            offer.region or _NONE,
            f"{offer.instances} × {offer.instance or 'device'}",
            str(offer.idle_devices),
            _usd(offer.usd_per_hour),
            _usd(offer.usd_per_million_output_tokens),
            f"{offer.price_date} {offer.source}".strip(),
        ]
        for offer in answer.offers[:_MOST_OFFERS]
    ]
    header = ["Cloud", "Region", "Rented", "Idle GPUs", "USD/h", "USD/M output tokens", "Price of"]
    more = len(answer.offers) - len(rows)
    said = f'<p class="soft">and {more} dearer ones.</p>' if more else ""
    return _table(header, rows) + said


def _launch_section(answers: Sequence[Answer]) -> Iterable[str]:
    found = [(each.title, each.launch) for each in answers if each.launch]
    if not found:
        return
    yield "<h2>How to start it</h2>"
    for title, text in found:
        yield f'<p class="soft">{escape(title)}</p><pre>{escape(text)}</pre>'


def _basis_list(answer: Answer) -> str:
    basis = answer.basis
    rows = [
        ["Predictor", basis.version],
        ["Trained on", f"{basis.rows:,} measured rows, the newest of {basis.data_date}"],
        ["Hash of the rows (SHA-256)", basis.data_hash],
        ["Nearest measured rows", answer.outcome.support],
        ["Report made", moment(clock.now())],
    ]
    return _table(["", ""], rows)


def _banded(band: Value, form: Any) -> str:
    return f"{form(band.mean)} {_range(band, form)}"


def _range(band: Value, form: Any) -> str:
    return f"[{form(band.low)} – {form(band.high)}]"


def _ms(value_ms: float) -> str:
    if value_ms >= 10_000:
        return f"{value_ms / 1000:,.1f} s"
    return f"{value_ms:,.1f} ms" if value_ms < 100 else f"{value_ms:,.0f} ms"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}"


def _usd(value: float | None) -> str:
    return _NONE if value is None else f"${value:,.2f}" if value >= 0.1 else f"${value:.3g}"


def _percent(old: float, new: float) -> str:
    return f"{(new / old - 1) * 100:+,.0f} %"
