"""`bud hardware` through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import cli
from app.commands import context
from core.accounts import services as accounts
from core.kernel.crypto import Secret
from core.projects import services as projects

ADD = (
    *("hardware", "add", "Rented H100", "--family", "hopper", "--memory-gb", "80"),
    *("--memory-bandwidth-gb-per-s", "3350", "--bf16-tflops", "989"),
)


@pytest.fixture
def bud(
    data_dir: Path, quick_passwords: None, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Any]]:
    """Run a command; what it printed, decoded with `--json`."""
    accounts.bootstrap("admin@example.org", Secret("correct-horse-battery"))
    projects.bootstrap()
    context.operator.cache_clear()

    def _run(*arguments: str, status: int = 0) -> Any:
        found = cli.main(list(arguments))
        printed = capsys.readouterr()
        assert found == status, printed.err
        text = printed.out if status == 0 else printed.err
        return json.loads(text) if "--json" in arguments else text

    yield _run
    context.operator.cache_clear()


def test_the_catalogue_is_listed_and_shown(bud: Callable[..., Any]) -> None:
    shown = bud("hardware", "list")
    assert "h200_sxm" in shown
    assert "150.8 GB" in shown
    assert "rtx_4070 " not in shown
    everything = bud("hardware", "list", "--all", "--json")
    assert {"h200_sxm", "rtx_4070"} <= {device["id"] for device in everything}
    assert bud("hardware", "show", "H200", "--json")["memory_bandwidth_gb_per_s"] == 4800
    assert "only the memory is known" in bud("hardware", "show", "rtx 4070")


def test_an_unknown_device_exits_4_with_the_nearest(bud: Callable[..., Any]) -> None:
    error = bud("hardware", "show", "mi356x", "--json", status=4)["error"]
    assert "mi356x" in error["what"]
    assert "mi355x" in error["remedy"]


def test_a_device_is_added_priced_and_removed(bud: Callable[..., Any]) -> None:
    assert bud(*ADD, "--json")["id"] == "rented_h100"
    assert "No price is known" in bud("hardware", "prices", "rented_h100")
    priced = bud(
        *("hardware", "set-price", "rented_h100", "--usd-per-kwh", "0.1"),
        *("--purchase-usd", "26280", "--watts", "1000", "--json"),
    )
    assert priced["usd_per_device_hour"] == pytest.approx(1.1)
    (price,) = bud("hardware", "prices", "rented_h100", "--json")
    assert price["cloud"] == "own"
    assert bud("hardware", "remove", "rented_h100", "--yes", "--json") == {"removed": "rented_h100"}
    bud("hardware", "show", "rented_h100", "--json", status=4)


def test_a_wrong_figure_exits_2_with_its_value(bud: Callable[..., Any]) -> None:
    error = bud(*ADD[:-1], "-5", "--json", status=2)["error"]
    assert "bf16_tflops" in error["what"]
    assert error["value"] == -5


def test_prices_name_cloud_and_instance(bud: Callable[..., Any]) -> None:
    shown = bud("hardware", "prices", "h100")
    assert "p5.48xlarge" in shown
    assert "6.880" in shown
