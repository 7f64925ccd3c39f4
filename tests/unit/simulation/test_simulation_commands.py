"""`bud simulate` through the command line, with a data folder and without."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import cli
from app.commands import context
from core.accounts import services as accounts
from core.hardware import services as hardware
from core.kernel import clock, machine
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.settings import settings
from core.projects import services as projects
from core.registry import services as registry

LLAMA = ("simulate", "meta-llama/Llama-3.1-8B-Instruct", "--on", "h100_sxm")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Any]]:
    """Run a command; what it printed, decoded with `--json`."""
    context.operator.cache_clear()

    def _run(*arguments: str, status: int = 0) -> Any:
        found = cli.main(list(arguments))
        printed = capsys.readouterr()
        assert found == status, printed.err
        text = printed.out if status == 0 else printed.err
        return json.loads(text) if "--json" in arguments else text

    yield _run
    context.operator.cache_clear()


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which Bud was never started."""
    monkeypatch.setenv("BUD_DATA_DIR", str(tmp_path / "none"))
    settings.cache_clear()
    yield
    assert not (tmp_path / "none").exists()
    settings.cache_clear()


@pytest.fixture
def person(data_dir: Path, admin: Actor, quick_passwords: None) -> Actor:
    """The operator of a data folder with the starter model, on a measured machine."""
    accounts.bootstrap("admin@example.org", Secret("correct-horse-battery"))
    projects.bootstrap()
    registry.add_starter(admin)
    measured = {
        "cpu_model": machine.cpu_model(),
        "cores": machine.cores(machine.cgroup_limits()),
        "rates": {
            "memory_bandwidth_gb_per_s": 20.0,
            "matmul_float32_tflops": 0.1,
            "weight_products": None,
        },
        "measured_at": clock.now().isoformat(),
    }
    (data_dir / "hardware_probe.json").write_text(json.dumps(measured))
    return admin


def test_one_is_answered_without_a_data_folder(nothing: None, run: Callable[..., Any]) -> None:
    text = run(*LLAMA, "--precision", "fp8", "--isl", "1024", "--osl", "512")
    assert "llama-3.1-8b (fp8) on 1 × NVIDIA H100 SXM 80 GB, vllm" in text
    for expected in (
        *("time to first token", "time per output token", "80% BETWEEN", "weights"),
        *("highest concurrency that fits", "fits                           yes"),
        "vllm serve meta-llama/Meta-Llama-3.1-8B",
    ):
        assert expected in text, text


def test_the_answer_as_json(nothing: None, run: Callable[..., Any]) -> None:
    found = run(*LLAMA, "--tp", "2", "--replicas", "2", "--concurrency", "64", "--json")
    assert (found["model"], found["devices"], found["fits"]) == ("llama-3.1-8b", 4, True)
    for name in ("ttft_ms", "tpot_ms", "e2e_ms", "tokens_per_s_per_gpu", "tokens_per_s_per_user"):
        assert 0 < found[name]["low"] < found[name]["mean"] < found[name]["high"]
    parts = found["memory_gb"]
    held = sum(parts[name] for name in ("weights", "kv", "activations", "runtime"))
    assert held == pytest.approx(found["memory_gb_per_gpu"])
    # Rented whole: the cheapest instance with this device holds eight of them.
    usd = found["usd_per_hour"]
    output_tokens_per_s = found["tokens_per_s_per_gpu"]["mean"] * 4
    assert found["usd_per_million_output_tokens"]["mean"] == pytest.approx(
        usd / 3600 / output_tokens_per_s * 1e6
    )
    assert found["launch"][0].startswith("# 2 of these\nvllm serve")


def test_a_device_without_a_price_costs_a_dash(nothing: None, run: Callable[..., Any]) -> None:
    text = run("simulate", "llama-2-7b", "--on", "gaudi2")
    assert [line.split()[-1] for line in text.splitlines() if line.startswith("USD")] == ["—"] * 3


def test_sides_of_their_own(nothing: None, run: Callable[..., Any]) -> None:
    found = run(
        *("simulate", "DeepSeek-R1-0528", "--on", "h200", "--engine", "sglang-disagg"),
        *("--mode", "disagg", "--prefill-workers", "2", "--prefill-tp", "8"),
        *("--decode-workers", "1", "--decode-tp", "16", "--decode-ep", "16", "--json"),
    )
    assert found["devices"] == 32
    assert [text.count("--disaggregation-mode") for text in found["launch"]] == [1, 1]


def test_what_does_not_fit_says_so(nothing: None, run: Callable[..., Any]) -> None:
    found = run("simulate", "llama-3.1-405b", "--on", "a100", "--json")
    assert (found["fits"], found["most_concurrency"]) == (False, 0)
    assert found["usd_per_million_output_tokens"] is None
    assert "does not fit" in found["notes"][0]


@pytest.mark.parametrize(
    ("arguments", "status", "what"),
    [
        (("simulate", "Qwen/Qwen3-33B", "--on", "h100"), 4, "No model of the name"),
        (("simulate", "llama-3.1-8b", "--on", "h101"), 4, "There is no hardware 'h101'"),
        (("simulate", "llama-3.1-8b", "--on", "rtx 4070"), 2, "only its memory is known"),
        ((*LLAMA, "--engine", "tgi"), 4, "There is no engine 'tgi'"),
        ((*LLAMA, "--precision", "fp7"), 4, "There is no precision 'fp7'"),
        ((*LLAMA, "--tp", "0"), 2, "tp must be 1 to 1,024 (got: 0)"),
        ((*LLAMA, "--isl", "1000000000"), 2, "isl must be 1 to 10,000,000 (got: 1000000000)"),
        ((*LLAMA, "--concurrency", "many"), 2, "concurrency is no number (got: many)"),
        (("simulate", "llama-3.1-8b"), 2, "Still needed: a device (--on)."),
        (("simulate", "/no/such.gguf", "--on", "h100"), 2, "There is no file /no/such.gguf"),
        (("simulate", "--batch", "in.csv"), 2, "--out"),
        (("simulate", "x", "--batch", "in.csv", "--out", "out.csv"), 2, "and no model"),
    ],
)
def test_bad_input_gets_a_clear_answer(
    nothing: None, run: Callable[..., Any], arguments: tuple[str, ...], status: int, what: str
) -> None:
    error = run(*arguments, "--json", status=status)["error"]
    assert what in error["what"]
    assert error["remedy"]


def test_a_file_is_answered(nothing: None, run: Callable[..., Any], tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(
        "model,system,engine,precision,mode,isl,osl,concurrency,tp,pp,ep,dp\n"
        "DeepSeek-R1-0528,b200-trt,dynamo-trt,fp4,agg,1024,1024,64,8,1,8,8\n"
        "no-such-model,b200-trt,dynamo-trt,fp4,agg,1024,1024,64,8,1,8,8\n"
    )
    arguments = ("simulate", "--batch", str(source), "--out", str(target))
    assert run(*arguments, "--json") == {
        "rows": 2,
        "answered": 1,
        "failed": 1,
        "target": str(target),
    }
    with target.open(newline="") as file:
        good, bad = csv.DictReader(file)
    assert float(good["tpot_ms_low"]) < float(good["tpot_ms"]) < float(good["tpot_ms_high"])
    assert "no-such-model" in bad["error"]
    assert "1 of 2 rows are answered" in run(*arguments)


def test_a_model_of_the_registry_on_this_machine(person: Actor, run: Callable[..., Any]) -> None:
    found = run(
        *("simulate", registry.STARTER_NAME, "--on", "this-machine", "--engine", "llama.cpp"),
        *("--isl", "64", "--osl", "32", "--concurrency", "1", "--json"),
    )
    assert (found["model"], found["precision"]) == (registry.STARTER_NAME, "int4")
    assert "This machine" in found["system"]
    assert found["fits"]
    assert "SmolLM2-135M-Instruct.Q4_1.gguf" in found["launch"][0]


def test_ones_own_price_counts(person: Actor, run: Callable[..., Any]) -> None:
    hardware.set_own_price(
        person, "gaudi2", usd_per_kwh=0.1, purchase_usd=26_280, lifetime_hours=26_280, watts=1000
    )
    found = run("simulate", "llama-2-7b", "--on", "gaudi2", "--json")
    assert found["usd_per_hour"] == pytest.approx(1.1)


def test_a_model_by_its_config(nothing: None, run: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "llama",
                "hidden_size": 2048,
                "num_hidden_layers": 16,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "intermediate_size": 8192,
                "vocab_size": 128256,
            }
        )
    )
    for path in (str(folder), str(folder / "config.json")):
        found = run("simulate", path, "--on", "l40s", "--json")
        assert found["model"] == path
        assert found["memory_gb"]["weights"] == pytest.approx(1.5 * 2, rel=0.05)
        assert found["launch"][0].startswith(f"vllm serve {folder} ")
