"""Predicted against measured TPOT of the starter model here: `bud bench simulator_local`.

The machine is probed first, then the real model server answers short requests, one at a time, at
several lengths. Of each run the median time between tokens counts, and of all runs the least: what
else runs on the machine only ever makes it slower. The probe measures in the same way. Beside it
stands the least of many short answers by the server's own clock: the same on a quiet machine, and
on a busy one what nothing else held up.
"""

from __future__ import annotations

import itertools
import json as json_module
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import msgspec

from core.deployments import predictions, server_records
from core.deployments.model_server import ServerConfig
from core.deployments.predictions import Setup
from core.deployments.schemas import Load
from core.hardware import services as hardware
from core.kernel import database, keys
from core.kernel.actor import Actor
from core.kernel.crypto import Secret
from core.kernel.settings import ROOT, settings
from core.registry import services as registry

LOADS = (Load(isl=16, osl=48), Load(isl=256, osl=32))
_RUNS = 6
# So short that other work on the machine leaves some of them alone.
_SHORT_RUNS = 60
_SHORT_TOKENS = 4
_START_TIMEOUT_S = 60.0
_CREDENTIAL = "bench"
_REPLICA = "rep_bench"


def run(json: bool = False) -> dict[str, Any]:
    """Measure on a throw-away data folder; prints the figures and gives them back."""
    folder = Path(tempfile.mkdtemp(prefix="bud-bench-"))
    environment = {"BUD_DATA_DIR": str(folder), "BUD_ADMIN_PASSWORD": "correct-horse-battery"}
    try:
        with mock.patch.dict("os.environ", environment):
            _forget()
            subprocess.run([sys.executable, "-m", "app.setup"], cwd=ROOT, check=True)
            rows = compare(Actor.system())
    finally:
        _forget()
        shutil.rmtree(folder)
    if json:
        print(json_module.dumps(rows))
        return {"rows": rows}
    for row in rows:
        print(
            f"{row['isl']:>5} in {row['osl']:>4} out   measured {row['measured_tpot_ms']:6.2f} ms"
            f" (undisturbed {row['undisturbed_tpot_ms']:.2f})"
            f"   predicted {row['predicted_tpot_ms']:6.2f} ms   {row['error']:+.1%}"
        )
    return {"rows": rows}


def _forget() -> None:
    database.dispose()
    settings.cache_clear()
    keys.keyring.cache_clear()


def compare(actor: Actor) -> list[dict[str, Any]]:
    """Predicted and measured TPOT of the starter model with one thread, for each of LOADS."""
    with _predicted_and_served(actor) as (predicted, url):
        measured = [(_least_tpot_ms(url, load), _undisturbed_tpot_ms(url, load)) for load in LOADS]
    return [
        {
            "isl": load.isl,
            "osl": load.osl,
            "measured_tpot_ms": tpot_ms,
            "undisturbed_tpot_ms": undisturbed_ms,
            "predicted_tpot_ms": expected,
            "error": expected / tpot_ms - 1,
        }
        for load, (tpot_ms, undisturbed_ms), expected in zip(
            LOADS, measured, predicted, strict=True
        )
    ]


def undisturbed(actor: Actor) -> list[tuple[Load, float, float]]:
    """Of each of LOADS the predicted TPOT, and the one that nothing else held up, both in ms."""
    with _predicted_and_served(actor) as (predicted, url):
        measured = [_undisturbed_tpot_ms(url, load) for load in LOADS]
    return list(zip(LOADS, predicted, measured, strict=True))


@contextmanager
def _predicted_and_served(actor: Actor) -> Iterator[tuple[list[float], str]]:
    """The TPOT that is predicted for each of LOADS, in ms, and the URL of the model's server."""
    model = registry.add_starter(actor)
    hardware.measure_this_machine(actor)
    asked = [(Setup(slots=1, threads=1, replicas=1), load) for load in LOADS]
    predicted = [each.tpot_ms.mean for each in predictions.predict(actor, model, asked)]
    with _serving(str(model.path)) as url:
        yield predicted, url


@contextmanager
def _serving(model_path: str) -> Iterator[str]:
    """The real model server as a deployment starts it, with one slot and one thread; its URL."""
    data_dir = settings().data_dir
    sealed = keys.keyring().seal(Secret(_CREDENTIAL), context=f"replica:{_REPLICA}")
    config = ServerConfig(
        replica_id=_REPLICA,
        deployment_id="dep_bench",
        data_dir=str(data_dir),
        keys_dir=str(data_dir / "keys"),
        model_path=model_path,
        model_name="starter",
        credential=sealed,
        context_tokens=1024,
        slots=1,
        threads=1,
        embedding=False,
    )
    path = server_records.config_path(data_dir, _REPLICA)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(config))
    command = [sys.executable, "-m", "core.deployments.model_server", str(path)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    server = subprocess.Popen(command, cwd=ROOT, env=environment, **quiet)
    try:
        yield _url(data_dir)
    finally:
        server.terminate()
        server.wait(timeout=30)


def _url(data_dir: Path) -> str:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline_s:
        for record in server_records.read_all(data_dir).values():
            url = f"http://127.0.0.1:{record.port}"
            if record.port and _is_healthy(url):
                return url
        time.sleep(0.1)
    raise TimeoutError(f"the model server does not answer within {_START_TIMEOUT_S:.0f} s")


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _least_tpot_ms(url: str, load: Load) -> float:
    """The least median time between the tokens of an answer."""
    return min(statistics.median(_gaps_ms(url, load, run)) for run in range(_RUNS))


def _undisturbed_tpot_ms(url: str, load: Load) -> float:
    """The least of short answers."""
    return min(_short_tpot_ms(url, load) for _ in range(_SHORT_RUNS))


def _short_tpot_ms(url: str, load: Load) -> float:
    """The mean time of a few tokens, as the server says; its prompt is in the cache after once."""
    body = {
        "prompt": [1000 + at * 31 for at in range(load.isl)],
        "n_predict": _SHORT_TOKENS,
        "ignore_eos": True,
    }
    headers = {"Authorization": f"Bearer {_CREDENTIAL}"}
    answer = httpx.post(
        f"{url}/completion", json=body, headers=headers, timeout=120, trust_env=False
    )
    timings = answer.raise_for_status().json()["timings"]
    # The clock starts with the first token.
    return float(timings["predicted_ms"]) / (int(timings["predicted_n"]) - 1)


def _gaps_ms(url: str, load: Load, run: int) -> list[float]:
    """The times between the tokens of one answer."""
    body = {
        # Token ids, other ones in each run: nothing of it is in the cache.
        "prompt": [1000 + (run * 7919 + at * 31) % 40_000 for at in range(load.isl)],
        "n_predict": load.osl,
        "ignore_eos": True,
        "stream": True,
    }
    headers = {"Authorization": f"Bearer {_CREDENTIAL}"}
    at_s = []
    with httpx.stream(
        "POST", f"{url}/completion", json=body, headers=headers, timeout=120, trust_env=False
    ) as answer:
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line.startswith("data:"):
                at_s.append(time.perf_counter())
    # The last event carries no token.
    return [1e3 * (later - earlier) for earlier, later in itertools.pairwise(at_s[:-1])]
