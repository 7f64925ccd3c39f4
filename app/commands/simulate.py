"""`bud simulate`: what a deployment will do, before paying for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app import formats
from app.commands import context, output
from app.commands.output import Json
from core.kernel.errors import InvalidInput, Unavailable

if TYPE_CHECKING:
    from core.kernel.actor import Actor
    from core.simulation.batch import One
    from core.simulation.costs import Rates
    from core.simulation.subjects import Subjects

_SIDE_HELP = "When disaggregated: "


def simulate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Model: a Hugging Face id, a name or id of the registry, or the path of a "
            "config.json or GGUF file.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[
        str, typer.Option("--on", help="Device, by id or name: h100_sxm, mi355x, this-machine …")
    ] = "",
    engine: Annotated[str, typer.Option(help="vllm, sglang, trtllm, llama.cpp, atom …")] = "vllm",
    precision: Annotated[
        str, typer.Option(help="Of the weights: bf16, fp8, fp4, int4, int8 (default: its own).")
    ] = "",
    mode: Annotated[str, typer.Option(help="agg, or disagg: prefill and decode apart.")] = "agg",
    isl: Annotated[str, typer.Option(help="Mean input tokens of a request.")] = "1024",
    osl: Annotated[str, typer.Option(help="Mean output tokens of a request.")] = "256",
    concurrency: Annotated[
        str, typer.Option(help="Requests in flight over the whole deployment.")
    ] = "16",
    tp: Annotated[str, typer.Option(help="Tensor parallel devices of a copy.")] = "1",
    pp: Annotated[str, typer.Option(help="Pipeline stages.")] = "1",
    ep: Annotated[str, typer.Option(help="Devices that share the experts.")] = "1",
    dp: Annotated[str, typer.Option(help="Ranks of data-parallel attention.")] = "1",
    replicas: Annotated[str, typer.Option(help="Independent copies of the model.")] = "1",
    spec_decoding: Annotated[str, typer.Option(help="none or mtp.")] = "none",
    engine_version: Annotated[str, typer.Option(help="Such as 0.19.0.")] = "",
    prefill_workers: Annotated[str, typer.Option(help=f"{_SIDE_HELP}prefilling workers.")] = "",
    prefill_tp: Annotated[str, typer.Option(help=f"{_SIDE_HELP}devices of each.")] = "",
    prefill_ep: Annotated[str, typer.Option(help=f"{_SIDE_HELP}its experts' devices.")] = "",
    prefill_dp: Annotated[str, typer.Option(help=f"{_SIDE_HELP}its ranks of attention.")] = "",
    decode_workers: Annotated[str, typer.Option(help=f"{_SIDE_HELP}decoding workers.")] = "",
    decode_tp: Annotated[str, typer.Option(help=f"{_SIDE_HELP}devices of each.")] = "",
    decode_ep: Annotated[str, typer.Option(help=f"{_SIDE_HELP}its experts' devices.")] = "",
    decode_dp: Annotated[str, typer.Option(help=f"{_SIDE_HELP}its ranks of attention.")] = "",
    batch: Annotated[
        Path | None,
        typer.Option(help="Answer the rows of this CSV file instead.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where --batch writes its answers.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Predict latency, throughput, memory and cost of a model on a device, with error bands.

    With --batch, every row of a CSV file is answered into the file --out, in order.
    """
    if batch is not None:
        _answer_file(model, batch, out, as_json=as_json)
        return
    columns = {
        "model": model or "",
        "system": system,
        "engine": engine,
        "precision": precision,
        "mode": mode,
        "isl": isl,
        "osl": osl,
        "concurrency": concurrency,
        "tp": tp,
        "pp": pp,
        "ep": ep,
        "dp": dp,
        "replicas": replicas,
        "spec_decoding": spec_decoding,
        "engine_version": engine_version,
        "prefill_workers": prefill_workers,
        "prefill_tp": prefill_tp,
        "prefill_ep": prefill_ep,
        "prefill_dp": prefill_dp,
        "decode_workers": decode_workers,
        "decode_tp": decode_tp,
        "decode_ep": decode_ep,
        "decode_dp": decode_dp,
    }
    _answer_one(columns, as_json=as_json)


def _answer_file(model: str | None, source: Path, target: Path | None, *, as_json: bool) -> None:
    from core.simulation import batch

    if model is not None or target is None:
        raise InvalidInput(
            "--batch takes an IN file and --out an OUT file, and no model.",
            remedy="Use: bud simulate --batch IN.csv --out OUT.csv",
        )
    summary = batch.run(source, target, _subjects(_actor()))
    text = (
        f"{summary.answered:,} of {summary.rows:,} rows are answered in {summary.target}; "
        f"{summary.failed:,} have an error."
    )
    output.show(summary, text, as_json=as_json)


def _answer_one(columns: dict[str, str], *, as_json: bool) -> None:
    from core.simulation import batch

    if not columns["model"] or not columns["system"]:
        missing = [
            what
            for what, column in (("a model", "model"), ("a device (--on)", "system"))
            if not columns[column]
        ]
        raise InvalidInput(
            f"Still needed: {' and '.join(missing)}.",
            remedy="Use, such as: bud simulate Qwen/Qwen3-8B --on h100_sxm",
        )
    actor = _actor()
    subjects = _subjects(actor)
    path = Path(columns["model"]).expanduser()
    # A path of the data files, such as /models/DeepSeek-R1, is a name where no such folder is.
    if path.suffix in (".json", ".gguf") or (path.is_absolute() and path.is_dir()):
        subjects = subjects.with_file(path, columns["model"])
    one = batch.answer_one(columns, subjects)
    found = _as_values(one, _rates(actor, one))
    output.show(found, _as_text(found), as_json=as_json)


def _actor() -> Actor | None:
    """The operator; None when this machine has no data folder: what ships needs none."""
    try:
        return context.operator()
    except Unavailable:
        return None


def _subjects(actor: Actor | None) -> Subjects:
    from core.simulation import subjects

    return subjects.shipped() if actor is None else subjects.for_actor(actor)


def _rates(actor: Actor | None, one: One) -> Rates:
    from core.hardware import catalogue
    from core.hardware import services as hardware
    from core.simulation.costs import chosen

    if actor is not None:
        return chosen(hardware.prices(actor, one.device.id))
    prices = catalogue.shipped_prices()
    return chosen(price for price in prices if price.accelerator_id == one.device.id)


def _as_values(one: One, rates: Rates) -> dict[str, Any]:
    from core.simulation import costs, launch
    from core.simulation.schemas import Value

    rows, prediction = one.scenarios, one.prediction
    devices = round(float(prediction.devices[0]))

    def band(name: str, factor: float = 1.0) -> Value:
        found = getattr(prediction, name)
        return Value(*(float(each[0]) * factor for each in (found.mean, found.low, found.high)))

    usd_per_hour = rates.usd_per_hour(devices)
    usd = costs.per_million_band(usd_per_hour, band("tokens_per_s_per_gpu", devices))
    usd = usd if one.fits else None
    share = float(rows.osl[0] / (rows.isl[0] + rows.osl[0]))
    tpot = band("tpot_ms")
    held = prediction.memory
    parts = ("weights", "kv", "activations", "runtime", "usable")
    return {
        "model": one.model_name,
        "system": one.device.name,
        "engine": one.engine,
        "precision": one.precision,
        "devices": devices,
        "ttft_ms": band("ttft_ms"),
        "tpot_ms": tpot,
        "e2e_ms": band("e2e_ms"),
        "tokens_per_s_per_user": Value(1e3 / tpot.mean, 1e3 / tpot.high, 1e3 / tpot.low),
        "tokens_per_s_per_gpu": band("tokens_per_s_per_gpu"),
        "total_tokens_per_s_per_gpu": float(prediction.total_tokens_per_s_per_gpu[0]),
        "requests_per_s": float(prediction.requests_per_s[0]),
        "memory_gb_per_gpu": float(held.needed[0]) / 1e9,
        "memory_gb": {name: float(getattr(held, name)[0]) / 1e9 for name in parts},
        "fits": one.fits,
        "most_concurrency": int(prediction.most_concurrency[0]) if prediction.fits[0] else 0,
        "usd_per_hour": usd_per_hour,
        "usd_per_million_output_tokens": usd,
        "usd_per_million_tokens": None if usd is None else usd.mean * share,
        "support": one.support,
        "notes": list(one.notes),
        "launch": [made.text for made in launch.of_scenario(rows, 0, one.models, one.path)],
    }


def _as_text(found: dict[str, Any]) -> str:
    memory = found["memory_gb"]
    title = (
        f"{found['model']} ({found['precision']}) on {found['devices']:,} × {found['system']}, "
        f"{found['engine']}\n"
    )
    rows = [
        ("time to first token", *_band(found["ttft_ms"], formats.ms)),
        ("time per output token", *_band(found["tpot_ms"], formats.ms)),
        ("end to end", *_band(found["e2e_ms"], formats.ms)),
        ("output tokens/s per user", *_band(found["tokens_per_s_per_user"], _rate)),
        ("output tokens/s per GPU", *_band(found["tokens_per_s_per_gpu"], _rate)),
        ("all tokens/s per GPU", _rate(found["total_tokens_per_s_per_gpu"]), ""),
        ("requests/s", f"{found['requests_per_s']:,.3g}", ""),
        ("USD per million output tokens", *_band(found["usd_per_million_output_tokens"], _usd)),
        ("USD per million tokens", _usd(found["usd_per_million_tokens"]), ""),
        ("USD per hour", _usd(found["usd_per_hour"]), ""),
    ]
    pairs = [
        ("memory per GPU", f"{found['memory_gb_per_gpu']:,.1f} of {memory['usable']:,.1f} GB"),
        *((f"  {name}", f"{memory[name]:,.1f} GB") for name in memory if name != "usable"),
        ("fits", "yes" if found["fits"] else "no"),
        ("highest concurrency that fits", formats.count(found["most_concurrency"])),
        ("support", found["support"]),
    ]
    text = [
        title,
        output.table(("", "mean", "80% between"), rows, empty=""),
        "",
        output.details(pairs),
        *(f"Note: {note}" for note in found["notes"]),
        *(f"\n{made}" for made in found["launch"]),
    ]
    return "\n".join(text)


def _band(value: Any, show: Any) -> tuple[str, str]:
    if value is None:
        return formats.NONE, ""
    return show(value.mean), f"{show(value.low)} – {show(value.high)}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def _usd(value: float | None) -> str:
    return formats.NONE if value is None else f"{value:,.2f}" if value >= 0.1 else f"{value:,.3g}"
